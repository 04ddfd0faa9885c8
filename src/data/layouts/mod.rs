//! Where a data set's images and labels are. One file a data set; [`find`] knows them by name.

use std::{
    cmp::Ordering,
    collections::HashSet,
    ffi::OsString,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::{DomainConfig, FILES, LAYOUTS},
    data::labels::{IdMap, LabelFile, TRAIN_IDS},
    error::{Error, Result},
};

mod adverse;
mod cityscapes;
mod files;
mod flat;

pub use files::Files;

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

static KNOWN: [&dyn Layout; 5] =
    [&flat::GTA, &flat::SYNTHIA, &cityscapes::Cityscapes, &adverse::ACDC, &adverse::DARK_ZURICH];

/// A domain's layout.
pub enum Domain {
    Known(&'static dyn Layout),
    Files(Box<Files>),
}

impl Domain {
    /// # Errors
    /// The configuration names a layout that does not exist.
    pub fn new(config: &DomainConfig, classes: usize) -> Result<Domain> {
        match config.layout.as_str() {
            FILES => Ok(Domain::Files(Box::new(Files::new(&config.files, classes)?))),
            name => Ok(Domain::Known(find(name)?)),
        }
    }
}

impl Deref for Domain {
    type Target = dyn Layout;

    fn deref(&self) -> &Self::Target {
        match self {
            Domain::Known(layout) => *layout,
            Domain::Files(files) => files.as_ref(),
        }
    }
}

/// The layout of this name, of those that need no description.
///
/// # Errors
/// There is none; the message lists those that exist.
pub fn find(name: &str) -> Result<&'static dyn Layout> {
    KNOWN.into_iter().find(|l| l.name() == name).ok_or_else(|| {
        Error::config(format!("layout \"{name}\" is not known: one of {}", LAYOUTS.join(", ")))
    })
}

/// A downloaded label's path and ids, as a pair with the prepared file beside it.
fn beside(raw: PathBuf, ids: &Arc<IdMap>, train_ids: PathBuf) -> Vec<LabelFile> {
    let ready = LabelFile { path: train_ids, ids: Arc::clone(&TRAIN_IDS) };
    vec![ready, LabelFile { path: raw, ids: Arc::clone(ids) }]
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

/// Files below `folder` whose name ends as `suffix` says, sorted by path as text.
fn files_below(
    layout: &dyn Layout,
    folder: &Path,
    suffix: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>> {
    let help = || {
        format!("{}; or make a small set to try things with `udass-raw toy`", {
            layout.how_to_get()
        })
    };
    if !folder.is_dir() {
        return Err(Error::data(folder, format!("this folder is missing. {}", help())));
    }
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, "list", e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(&folder, "list", e))?;
            let path = entry.path();
            // Follows links: data sets are often linked to where there is space.
            if path.is_dir() {
                open.push(path);
            } else if entry.file_name().to_str().is_some_and(&suffix) {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        let problem = format!("this folder holds no files of the data set. {}", help());
        return Err(Error::data(folder, problem));
    }
    found.sort_by(|a, b| by_path(a, b));
    Ok(found)
}

/// Sorts paths as text.
fn by_path(a: &Path, b: &Path) -> Ordering {
    a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes())
}

/// `path` with `from` at the end of its name replaced by `to`.
fn with_suffix(path: &Path, from: &str, to: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(from)?;
    Some(path.with_file_name(OsString::from(format!("{name}{to}"))))
}

/// What [`with_suffix`] gives for a path that was listed by that very suffix.
fn renamed(path: &Path, from: &str, to: &str) -> Result<PathBuf> {
    with_suffix(path, from, to)
        .ok_or_else(|| Error::data(path, format!("expected a name that ends in {from}")))
}

/// `path`, which is below `from`, at the same place below `to`.
fn moved(path: &Path, from: &Path, to: &Path) -> Result<PathBuf> {
    let relative = path.strip_prefix(from);
    relative
        .map(|relative| to.join(relative))
        .map_err(|_| Error::data(path, format!("expected a file below {}", from.display())))
}
