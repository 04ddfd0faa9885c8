//! ACDC and Dark Zurich: photographs in adverse conditions with the classes of Cityscapes.
//!
//! Images are `rgb_anon/<condition>/<split>/<sequence>/*_rgb_anon.png` (ACDC) or
//! `rgb_anon/<split>/night/<sequence>/*_rgb_anon.png` (Dark Zurich). Labels are at the same place
//! below `gt/`, as `*_gt_labelTrainIds.png` files that the downloads include.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::layout::{Layout, RawLabel, Split, files_below, label_files};
use super::paths::{moved, renamed};
use crate::{
    data::labels::{CITYSCAPES_IDS, LabelFile, TRAIN_IDS},
    error::Result,
};

pub(super) struct Adverse {
    name: &'static str,
    how_to_get: &'static str,
    /// Condition folders that contain the split folders in the original download.
    conditions: &'static [&'static str],
    /// The only subfolder of a split that is used; empty for all of them.
    only: &'static str,
    /// Splits that have labels.
    labeled: &'static [Split],
}

/// ACDC, either as downloaded, or with the images of all conditions moved to `rgb_anon/<split>` and
/// `gt/<split>`, as the reference expects.
pub(super) static ACDC: Adverse = Adverse {
    name: "acdc",
    how_to_get: "Register at https://acdc.vision.ee.ethz.ch/download, download \
                 rgb_anon_trainvaltest.zip and gt_trainval.zip and unpack them so that rgb_anon/ \
                 and gt/ are in the dataset's root",
    conditions: &["fog", "night", "rain", "snow"],
    only: "",
    labeled: &[Split::Train, Split::Val],
};

/// The night images of Dark Zurich; day and twilight images are not used. There are no training
/// labels.
pub(super) static DARK_ZURICH: Adverse = Adverse {
    name: "dark_zurich",
    how_to_get: "Download Dark_Zurich_train_anon.zip and Dark_Zurich_val_anon.zip from \
                 https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/ and unpack them so that \
                 rgb_anon/ and gt/ are in the dataset's root",
    conditions: &[],
    only: "night",
    labeled: &[Split::Val],
};

const IMAGE: &str = "_rgb_anon.png";
const LABEL_IDS: &str = "_gt_labelIds.png";
const TRAIN_LABEL: &str = "_gt_labelTrainIds.png";

impl Adverse {
    /// Lists the files of a split below `kind`, which is the `rgb_anon` or `gt` folder.
    fn files(&self, kind: &Path, split: Split, ending: &str) -> Result<Vec<PathBuf>> {
        let together = kind.join(split.name()).join(self.only);
        let apart = self.conditions.iter().map(|name| kind.join(name).join(split.name()));
        let folders: Vec<PathBuf> = match together.is_dir() {
            true => Vec::new(),
            false => apart.filter(|folder| folder.is_dir()).collect(),
        };
        if folders.is_empty() {
            return files_below(self, &together, &[ending]);
        }
        let files = folders.iter().map(|f| files_below(self, f, &[ending]));
        Ok(files.collect::<Result<Vec<_>>>()?.concat())
    }
}

impl Layout for Adverse {
    fn name(&self) -> &'static str {
        self.name
    }

    fn how_to_get(&self) -> &'static str {
        self.how_to_get
    }

    fn images(&self, root: &Path, split: Split) -> Result<Vec<PathBuf>> {
        self.files(&root.join("rgb_anon"), split, IMAGE)
    }

    fn raw_labels(&self, root: &Path) -> Result<Vec<RawLabel>> {
        let (labels, images) = (root.join("gt"), root.join("rgb_anon"));
        let mut all = Vec::new();
        for &split in self.labeled {
            for path in self.files(&labels, split, TRAIN_LABEL)? {
                let image = moved(&path, &labels, &images)?;
                all.push(RawLabel {
                    image: renamed(&image, TRAIN_LABEL, IMAGE)?,
                    label: LabelFile { path, ids: Arc::clone(&TRAIN_IDS) },
                    train_ids: None,
                    counted: split == Split::Train,
                });
            }
        }
        Ok(all)
    }

    fn labels_of(&self, root: &Path, _: Split, image: &Path) -> Result<Vec<LabelFile>> {
        let label = moved(image, &root.join("rgb_anon"), &root.join("gt"))?;
        let train_ids = renamed(&label, IMAGE, TRAIN_LABEL)?;
        Ok(label_files(renamed(&label, IMAGE, LABEL_IDS)?, &CITYSCAPES_IDS, train_ids))
    }
}
