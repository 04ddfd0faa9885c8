//! The interface of a dataset layout: where images and labels are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::paths::files;
use crate::data::labels::{IdMap, LabelFile, TRAIN_IDS};
use crate::error::{Error, Result};

/// A split of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training split.
    Train,
    /// Validation split.
    Val,
    /// Test split.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// Returns the name of the split in folder names.
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
    /// Path of the image.
    pub image: PathBuf,
    /// Label of the image.
    pub label: LabelFile,
}

/// A downloaded label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawLabel {
    /// Path of the image.
    pub image: PathBuf,
    /// The downloaded file.
    pub label: LabelFile,
    /// File of train ids that preparation writes next to the label, or None if the label is read
    /// directly.
    pub train_ids: Option<PathBuf>,
    /// Whether the statistics count its classes.
    pub counted: bool,
}

/// Folders and file names of a dataset.
pub trait Layout: Send + Sync {
    /// Returns the name of the layout in the configuration.
    fn name(&self) -> &'static str;

    /// Returns instructions for obtaining the data, for errors about missing files.
    fn how_to_get(&self) -> &'static str;

    /// Lists the images of a split, sorted by path.
    ///
    /// # Errors
    /// The folder is missing or contains no images.
    fn images(&self, root: &Path, split: Split) -> Result<Vec<PathBuf>>;

    /// Lists the downloaded labels, sorted by path.
    ///
    /// # Errors
    /// The folder is missing or contains no labels.
    fn raw_labels(&self, root: &Path) -> Result<Vec<RawLabel>>;

    /// Returns the files that may hold the label of an image, in order of preference: prepared
    /// train ids, then the downloaded label.
    fn labels_of(&self, root: &Path, split: Split, image: &Path) -> Result<Vec<LabelFile>>;

    /// Returns the name and contents of the text files that preparation writes next to the
    /// statistics.
    fn lists(&self, _root: &Path) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    /// Checks that the statistics match the dataset as it is configured.
    ///
    /// # Errors
    /// The statistics are missing or were counted under another configuration.
    fn check_statistics(&self, _root: &Path) -> Result<()> {
        Ok(())
    }

    /// Returns the images of a split with their labels: the prepared labels where they exist,
    /// otherwise the downloaded ones.
    ///
    /// # Errors
    /// The folder is missing or empty, or an image has no label; the first such image is named.
    fn pairs(&self, root: &Path, split: Split) -> Result<Vec<Pair>> {
        let images = self.images(root, split)?;
        let mut folders = Folders::default();
        let mut pairs = Vec::with_capacity(images.len());
        for image in images {
            let choices = self.labels_of(root, split, &image)?;
            let Some(label) = choices.iter().find(|l| folders.contains(&l.path)) else {
                let wanted: Vec<_> = choices.iter().map(|l| l.path.display().to_string()).collect();
                let wanted = wanted.join(" nor ");
                let problem = format!("this image has no label: {wanted} does not exist");
                return Err(Error::data(image, problem));
            };
            pairs.push(Pair { label: label.clone(), image });
        }
        Ok(pairs)
    }
}

/// Checks whether files exist by listing each folder once, because a dataset contains tens of
/// thousands of files.
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

/// Returns the candidates for a label that has a prepared file next to it: the train ids first,
/// then the downloaded label.
pub(super) fn label_files(raw: PathBuf, ids: &Arc<IdMap>, train_ids: PathBuf) -> Vec<LabelFile> {
    let ready = LabelFile { path: train_ids, ids: Arc::clone(&TRAIN_IDS) };
    vec![ready, LabelFile { path: raw, ids: Arc::clone(ids) }]
}

/// Lists the files below `folder` whose name satisfies `suffix`, sorted by path as text.
pub(super) fn files_below(
    layout: &dyn Layout,
    folder: &Path,
    suffix: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>> {
    let help = || {
        let how = layout.how_to_get();
        format!("{how}; or generate a small synthetic dataset with `udass-raw toy`")
    };
    if !folder.is_dir() {
        return Err(Error::data(folder, format!("this folder is missing. {}", help())));
    }
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(&suffix);
    let found = files(folder, usize::MAX, name)?;
    if found.is_empty() {
        let problem = format!("this folder contains no files of the dataset. {}", help());
        return Err(Error::data(folder, problem));
    }
    Ok(found)
}
