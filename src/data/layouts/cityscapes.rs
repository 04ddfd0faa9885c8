//! Cityscapes: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and
//! `gtFine/<split>/<city>/*_gtFine_labelIds.png`.
//!
//! The download contains annotation polygons and label-id PNGs rendered from them; the PNGs are
//! read.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::layout::{Layout, RawLabel, Split, files_below, label_files};
use super::paths::{moved, renamed};
use crate::{
    data::labels::{CITYSCAPES_IDS, LabelFile},
    error::{Error, Result},
};

pub(super) struct Cityscapes;

const IMAGE: &str = "_leftImg8bit.png";
const LABEL_IDS: &str = "_gtFine_labelIds.png";
const TRAIN_IDS: &str = "_gtFine_labelTrainIds.png";

impl Layout for Cityscapes {
    fn name(&self) -> &'static str {
        "cityscapes"
    }

    fn how_to_get(&self) -> &'static str {
        "Register at https://www.cityscapes-dataset.com, download leftImg8bit_trainvaltest.zip and \
         gtFine_trainvaltest.zip and unpack them so that leftImg8bit/ and gtFine/ are in the \
         dataset's root"
    }

    fn images(&self, root: &Path, split: Split) -> Result<Vec<PathBuf>> {
        let folder = root.join("leftImg8bit").join(split.name());
        files_below(self, &folder, &[IMAGE])
    }

    fn converts(&self) -> bool {
        true
    }

    fn raw_labels(&self, root: &Path) -> Result<Vec<RawLabel>> {
        let (labels, images) = (root.join("gtFine"), root.join("leftImg8bit"));
        files_below(self, &labels, &[LABEL_IDS])?
            .into_iter()
            .map(|path| {
                let image = moved(&path, &labels, &images)?;
                Ok(RawLabel {
                    image: renamed(&image, LABEL_IDS, IMAGE)?,
                    train_ids: Some(renamed(&path, LABEL_IDS, TRAIN_IDS)?),
                    counted: path.starts_with(labels.join(Split::Train.name())),
                    label: LabelFile { path, ids: Arc::clone(&CITYSCAPES_IDS) },
                })
            })
            .collect()
    }

    fn labels_of(&self, root: &Path, _: Split, image: &Path) -> Result<Vec<LabelFile>> {
        let label = moved(image, &root.join("leftImg8bit"), &root.join("gtFine"))?;
        let raw = renamed(&label, IMAGE, LABEL_IDS)?;
        let train_ids = renamed(&label, IMAGE, TRAIN_IDS)?;
        Ok(label_files(raw, &CITYSCAPES_IDS, train_ids))
    }

    /// Returns `train.txt`, `val.txt` and `test.txt`, with one line like
    /// `<city>/<city>_000000_000019` per image.
    fn lists(&self, root: &Path) -> Result<Vec<(String, String)>> {
        let labels = self.raw_labels(root)?;
        let mut lists = Vec::new();
        for split in Split::ALL {
            let folder = root.join("gtFine").join(split.name());
            let mut text = String::new();
            for label in &labels {
                let Ok(relative) = label.label.path.strip_prefix(&folder) else { continue };
                let stem = relative.to_str().and_then(|name| name.strip_suffix(LABEL_IDS));
                let stem = stem
                    .ok_or_else(|| Error::data(&label.label.path, "this file name is not UTF-8"))?;
                // The released lists use slashes on every operating system.
                let _ = writeln!(text, "{}", stem.replace('\\', "/"));
            }
            lists.push((format!("{}.txt", split.name()), text));
        }
        Ok(lists)
    }
}
