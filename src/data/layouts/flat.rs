//! Datasets with one folder of images and one of labels with the same file names, all for training:
//! GTA V ("Playing for Data") and SYNTHIA-RAND-CITYSCAPES.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use super::layout::{Layout, RawLabel, Split, files_below, label_files};
use super::paths::{moved, renamed};
use crate::{
    data::labels::{CITYSCAPES_IDS, IdMap, LabelFile, SYNTHIA_IDS},
    error::Result,
};

pub(super) struct Flat {
    name: &'static str,
    how_to_get: &'static str,
    /// Folders of images and labels below the root.
    images: &'static str,
    labels: &'static str,
    ids: &'static LazyLock<Arc<IdMap>>,
}

/// GTA: `images/00001.png` and `labels/00001.png`, palette PNGs whose indices are Cityscapes label
/// ids.
pub(super) static GTA: Flat = Flat {
    name: "gta",
    how_to_get: "Download the images and labels of all 10 parts from \
                 https://download.visinf.tu-darmstadt.de/data/from_games/ and unpack them so that \
                 images/ and labels/ are in the dataset's root",
    images: "images",
    labels: "labels",
    ids: &CITYSCAPES_IDS,
};

/// SYNTHIA: `RGB/0000000.png` and `GT/LABELS/0000000.png`, 16-bit PNGs whose first channel is the
/// class.
pub(super) static SYNTHIA: Flat = Flat {
    name: "synthia",
    how_to_get: "Download SYNTHIA-RAND-CITYSCAPES from http://synthia-dataset.net/downloads/ and \
                 unpack it so that RGB/ and GT/LABELS/ are in the dataset's root",
    images: "RGB",
    labels: "GT/LABELS",
    ids: &SYNTHIA_IDS,
};

const TRAIN_IDS: &str = "_labelTrainIds.png";

impl Layout for Flat {
    fn name(&self) -> &'static str {
        self.name
    }

    fn how_to_get(&self) -> &'static str {
        self.how_to_get
    }

    /// Lists all images, whatever the split: the dataset has no splits.
    fn images(&self, root: &Path, _: Split) -> Result<Vec<PathBuf>> {
        files_below(self, &root.join(self.images), &[".png"])
    }

    fn converts(&self) -> bool {
        true
    }

    fn raw_labels(&self, root: &Path) -> Result<Vec<RawLabel>> {
        // The name of a downloaded label ends in a digit; that of a prepared one does not.
        let downloaded = |path: &PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            stem.is_some_and(|stem| stem.ends_with(|c: char| c.is_ascii_digit()))
        };
        let labels = root.join(self.labels);
        files_below(self, &labels, &[".png"])?
            .into_iter()
            .filter(downloaded)
            .map(|path| {
                Ok(RawLabel {
                    image: moved(&path, &labels, &root.join(self.images))?,
                    train_ids: Some(renamed(&path, ".png", TRAIN_IDS)?),
                    label: LabelFile { path, ids: Arc::clone(self.ids) },
                    counted: true,
                })
            })
            .collect()
    }

    fn labels_of(&self, root: &Path, _: Split, image: &Path) -> Result<Vec<LabelFile>> {
        let raw = moved(image, &root.join(self.images), &root.join(self.labels))?;
        let train_ids = renamed(&raw, ".png", TRAIN_IDS)?;
        Ok(label_files(raw, self.ids, train_ids))
    }
}
