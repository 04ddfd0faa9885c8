//! GTA V ("Playing for Data"): `images/00001.png`, `labels/00001.png`. All of it is for training.
//!
//! Labels are palette PNGs whose indices are Cityscapes label ids.

use std::path::{Path, PathBuf};

use super::{Layout, RawLabel, Split, beside, files_below, moved, renamed};
use crate::{
    data::labels::{CITYSCAPES_IDS, LabelFile},
    error::Result,
};

pub(super) struct Gta;

const TRAIN_IDS: &str = "_labelTrainIds.png";

impl Layout for Gta {
    fn name(&self) -> &'static str {
        "gta"
    }

    fn how_to_get(&self) -> &'static str {
        "Download the images and labels of all 10 parts from \
         https://download.visinf.tu-darmstadt.de/data/from_games/ and unpack them, so that images/ \
         and labels/ stand in the data set's root"
    }

    /// GTA has no splits: whichever is asked for, it is all of the folder.
    fn images(&self, root: &Path, _: Split) -> Result<Vec<PathBuf>> {
        files_below(self, &root.join("images"), |name| name.ends_with(".png"))
    }

    fn raw_labels(&self, root: &Path) -> Result<Vec<RawLabel>> {
        // A digit before the ending tells a downloaded label from a prepared one.
        let downloaded = |name: &str| {
            let digit = |stem: &str| stem.ends_with(|c: char| c.is_ascii_digit());
            name.strip_suffix(".png").is_some_and(digit)
        };
        let labels = root.join("labels");
        files_below(self, &labels, downloaded)?
            .into_iter()
            .map(|path| {
                Ok(RawLabel {
                    image: moved(&path, &labels, &root.join("images"))?,
                    train_ids: renamed(&path, ".png", TRAIN_IDS)?,
                    label: LabelFile { path, ids: &CITYSCAPES_IDS },
                    counted: true,
                })
            })
            .collect()
    }

    fn labels_of(&self, root: &Path, image: &Path) -> Result<[LabelFile; 2]> {
        let raw = moved(image, &root.join("images"), &root.join("labels"))?;
        let train_ids = renamed(&raw, ".png", TRAIN_IDS)?;
        Ok(beside(raw, &CITYSCAPES_IDS, train_ids))
    }
}
