//! Photographs in adverse conditions with Cityscapes' classes: ACDC and Dark Zurich.
//!
//! `rgb_anon/<condition>/<split>/<sequence>/*_rgb_anon.png` (ACDC) or
//! `rgb_anon/<split>/night/<sequence>/*_rgb_anon.png` (Dark Zurich), and at the same place below
//! `gt/` `*_gt_labelTrainIds.png`, which the downloads hold ready.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::layout::{Layout, RawLabel, Split, beside, files_below};
use super::paths::{moved, renamed};
use crate::{
    data::labels::{CITYSCAPES_IDS, LabelFile, TRAIN_IDS},
    error::Result,
};

pub(super) struct Adverse {
    name: &'static str,
    how_to_get: &'static str,
    /// Folders above the splits', where the download is as it was.
    conditions: &'static [&'static str],
    /// Folder below a split's that alone counts.
    only: &'static str,
    /// Splits with labels.
    labelled: &'static [Split],
}

/// Either as downloaded, or with the conditions' images moved together into `rgb_anon/<split>` and
/// `gt/<split>`, as the reference wants them.
pub(super) static ACDC: Adverse = Adverse {
    name: "acdc",
    how_to_get: "Register at https://acdc.vision.ee.ethz.ch/download, download \
                 rgb_anon_trainvaltest.zip and gt_trainval.zip and unpack them, so that rgb_anon/ \
                 and gt/ stand in the data set's root",
    conditions: &["fog", "night", "rain", "snow"],
    only: "",
    labelled: &[Split::Train, Split::Val],
};

/// The photographs at night; those by day and at dusk are left aside. No training labels.
pub(super) static DARK_ZURICH: Adverse = Adverse {
    name: "dark_zurich",
    how_to_get: "Download Dark_Zurich_train_anon.zip and Dark_Zurich_val_anon.zip from \
                 https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/ and unpack them, so that \
                 rgb_anon/ and gt/ stand in the data set's root",
    conditions: &[],
    only: "night",
    labelled: &[Split::Val],
};

const IMAGE: &str = "_rgb_anon.png";
const LABEL_IDS: &str = "_gt_labelIds.png";
const TRAIN_LABEL: &str = "_gt_labelTrainIds.png";

impl Adverse {
    /// Files of a split below `kind`, which is `rgb_anon` or `gt`.
    fn files(&self, kind: &Path, split: Split, ending: &str) -> Result<Vec<PathBuf>> {
        let together = kind.join(split.name()).join(self.only);
        let apart = self.conditions.iter().map(|name| kind.join(name).join(split.name()));
        let folders: Vec<PathBuf> = match together.is_dir() {
            true => Vec::new(),
            false => apart.filter(|folder| folder.is_dir()).collect(),
        };
        if folders.is_empty() {
            return files_below(self, &together, |name| name.ends_with(ending));
        }
        let files = folders.iter().map(|f| files_below(self, f, |name| name.ends_with(ending)));
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
        for &split in self.labelled {
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
        Ok(beside(renamed(&label, IMAGE, LABEL_IDS)?, &CITYSCAPES_IDS, train_ids))
    }
}
