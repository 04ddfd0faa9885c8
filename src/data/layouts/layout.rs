//! What every layout says of its data set: where images and labels are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::paths::files;
use crate::data::labels::{IdMap, LabelFile, TRAIN_IDS};
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    Val,
    Test,
}

impl Split {
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

/// An image and its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub image: PathBuf,
    pub label: LabelFile,
}

/// A downloaded label and the file of train ids that preparation writes beside it; none where the
/// label is read as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawLabel {
    pub image: PathBuf,
    pub label: LabelFile,
    pub train_ids: Option<PathBuf>,
    /// Whether its classes are counted in the statistics.
    pub counted: bool,
}

/// A data set's places and names.
pub trait Layout: Send + Sync {
    /// As the configuration calls it.
    fn name(&self) -> &'static str;

    /// How to come by the data, for whom it is missing.
    fn how_to_get(&self) -> &'static str;

    /// Images of a split, sorted by path.
    fn images(&self, root: &Path, split: Split) -> Result<Vec<PathBuf>>;

    /// Labels as downloaded, sorted by path.
    fn raw_labels(&self, root: &Path) -> Result<Vec<RawLabel>>;

    /// The labels that an image of a split may have, the better first: train ids, then as downloaded.
    fn labels_of(&self, root: &Path, split: Split, image: &Path) -> Result<Vec<LabelFile>>;

    /// Text files that preparation writes beside the statistics: name and contents.
    fn lists(&self, _root: &Path) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    /// Complains about statistics that are not of this data set as it is described.
    fn check_statistics(&self, _root: &Path) -> Result<()> {
        Ok(())
    }

    /// Images of a split with their labels: the prepared ones where they exist, else the
    /// downloaded.
    ///
    /// # Errors
    /// The folder is missing or empty, or an image has no label (the first is named).
    fn pairs(&self, root: &Path, split: Split) -> Result<Vec<Pair>> {
        let images = self.images(root, split)?;
        let mut folders = Folders::default();
        let mut pairs = Vec::with_capacity(images.len());
        for image in images {
            let choices = self.labels_of(root, split, &image)?;
            let Some(label) = choices.iter().find(|l| folders.contains(&l.path)) else {
                let wanted: Vec<_> = choices.iter().map(|l| l.path.display().to_string()).collect();
                let wanted = wanted.join(" nor ");
                let problem = format!("this image has no label: there is no {wanted}");
                return Err(Error::data(image, problem));
            };
            pairs.push(Pair { label: label.clone(), image });
        }
        Ok(pairs)
    }
}

/// Answers whether files exist by listing each folder once: a data set holds tens of thousands.
#[derive(Default)]
struct Folders {
    listed: HashSet<PathBuf>,
    files: HashSet<PathBuf>,
}

impl Folders {
    fn contains(&mut self, path: &Path) -> bool {
        let Some(folder) = path.parent() else { return false };
        if !self.listed.contains(folder) {
            if let Ok(entries) = std::fs::read_dir(folder) {
                self.files.extend(entries.flatten().map(|e| e.path()));
            }
            self.listed.insert(folder.to_owned());
        }
        self.files.contains(path)
    }
}

/// A downloaded label's path and ids, as a pair with the prepared file beside it.
pub(super) fn beside(raw: PathBuf, ids: &Arc<IdMap>, train_ids: PathBuf) -> Vec<LabelFile> {
    let ready = LabelFile { path: train_ids, ids: Arc::clone(&TRAIN_IDS) };
    vec![ready, LabelFile { path: raw, ids: Arc::clone(ids) }]
}

/// Files below `folder` whose name ends as `suffix` says, sorted by path as text.
pub(super) fn files_below(
    layout: &dyn Layout,
    folder: &Path,
    suffix: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>> {
    let help = || {
        let how = layout.how_to_get();
        format!("{how}; or make a small set to try things with `udass-raw toy`")
    };
    if !folder.is_dir() {
        return Err(Error::data(folder, format!("this folder is missing. {}", help())));
    }
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(&suffix);
    let found = files(folder, usize::MAX, name)?;
    if found.is_empty() {
        let problem = format!("this folder holds no files of the data set. {}", help());
        return Err(Error::data(folder, problem));
    }
    Ok(found)
}
