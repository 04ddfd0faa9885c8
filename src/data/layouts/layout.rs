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

    /// Returns whether preparation converts the downloaded labels.
    fn converts(&self) -> bool {
        false
    }

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

    /// Matches the images of a split with their labels: the prepared labels where they exist,
    /// otherwise the downloaded ones.
    ///
    /// # Errors
    /// The folder is missing or empty.
    fn matched(&self, root: &Path, split: Split) -> Result<Matched> {
        let mut folders = Folders::default();
        let mut matched = Matched::default();
        for image in self.images(root, split)? {
            let choices = self.labels_of(root, split, &image)?;
            match choices.iter().find(|l| folders.contains(&l.path)) {
                Some(label) => matched.pairs.push(Pair { label: label.clone(), image }),
                None => matched.unlabeled.push((image, choices)),
            }
        }
        Ok(matched)
    }

    /// Returns the images of a split with their labels, like [`matched`](Layout::matched).
    ///
    /// # Errors
    /// The folder is missing or empty, or images have no label; the error counts them and names the
    /// first few.
    fn pairs(&self, root: &Path, split: Split) -> Result<Vec<Pair>> {
        let matched = self.matched(root, split)?;
        matched.missing().map_or(Ok(matched.pairs), Err)
    }
}

/// The images of a split, with and without labels.
#[derive(Debug, Default)]
pub struct Matched {
    /// Images with their labels.
    pub pairs: Vec<Pair>,
    /// Images without a label, with the files that would have been labels.
    pub unlabeled: Vec<(PathBuf, Vec<LabelFile>)>,
}

impl Matched {
    /// Returns an error that counts the images without a label and names the first few, if there
    /// are any.
    pub fn missing(&self) -> Option<Error> {
        let (first, choices) = self.unlabeled.first()?;
        let wanted: Vec<_> = choices.iter().map(|l| l.path.display().to_string()).collect();
        let wanted = wanted.join(" nor ");
        let mut problem = format!("this image has no label: {wanted} does not exist");
        let lonely = self.unlabeled.len();
        if lonely > 1 {
            let others = self.unlabeled.iter().skip(1).take(LISTED);
            let others: Vec<_> = others.map(|(image, _)| image.display().to_string()).collect();
            problem += &format!(
                ". {lonely} of the {} images have none: also {}{}",
                self.pairs.len() + lonely,
                others.join(", "),
                if lonely > 1 + LISTED { ", …" } else { "" }
            );
        }
        Some(Error::data(first, problem))
    }
}

/// Number of further images without a label that an error names.
const LISTED: usize = 5;

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

/// Lists the files below `folder` whose names end in one of `endings`, sorted by path as text.
pub(super) fn files_below(
    layout: &dyn Layout,
    folder: &Path,
    endings: &[&str],
) -> Result<Vec<PathBuf>> {
    let help = || {
        let how = layout.how_to_get();
        format!("{how}; or generate a small synthetic dataset with `udass-raw toy`")
    };
    if !folder.is_dir() {
        let problem = match one_level_down(folder) {
            Some(found) => format!(
                "this folder is missing, but there is {}: move it here, or set the root to the \
                 folder that holds it",
                found.display()
            ),
            None => format!("this folder is missing. {}", help()),
        };
        return Err(Error::data(folder, problem));
    }
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let wanted = |path: &Path| {
        name(path).is_some_and(|name| endings.iter().any(|ending| name.ends_with(ending)))
    };
    let found = files(folder, usize::MAX, wanted)?;
    if found.is_empty() {
        let others = files(folder, usize::MAX, |_| true)?;
        let problem = match others.first().and_then(|path| name(path)) {
            Some(example) => format!(
                "none of the {} files here (such as {example}) is called *{}; layout = \"files\" \
                 reads files of any names",
                others.len(),
                endings.join(" or *")
            ),
            None => format!("this folder contains no files of the dataset. {}", help()),
        };
        return Err(Error::data(folder, problem));
    }
    Ok(found)
}

/// Looks for a missing folder where unpacking an archive into a folder of its own puts it: in the
/// nearest existing ancestor, one level further down.
fn one_level_down(folder: &Path) -> Option<PathBuf> {
    let root = folder.ancestors().find(|ancestor| ancestor.is_dir())?;
    let missing = folder.strip_prefix(root).ok()?;
    let mut below: Vec<PathBuf> =
        std::fs::read_dir(root).ok()?.flatten().map(|e| e.path()).collect();
    below.sort();
    below.into_iter().map(|inner| inner.join(missing)).find(|found| found.is_dir())
}
