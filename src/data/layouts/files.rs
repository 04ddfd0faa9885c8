//! The layout "files": images and labels in any folders, found by glob patterns.
//!
//! In a glob, `*` matches any text within a name, `?` one character, and `**` any number of
//! folders, including none. The label of an image is the file that the label glob names after its
//! wildcards are replaced by the text that the wildcards of the image glob matched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regex::Regex;

use super::layout::{Layout, Pair, RawLabel, Split};
use super::paths::files;
use crate::config::{FILES, FilesConfig};
use crate::data::labels::{IdMap, LabelFile};
use crate::error::{Error, Result};
use crate::file::{self, MAX_TEXT};

/// A dataset whose images and labels are found by globs.
pub struct Files {
    files: FilesConfig,
    /// Globs of images and labels, for training and for validation.
    train: [Glob; 2],
    val: [Glob; 2],
    ids: Arc<IdMap>,
}

/// File that records the ids that preparation counted. It is next to the statistics, which are
/// only valid for these ids.
const VALUES: &str = "label_values.json";

impl Files {
    /// Creates the layout that `[source.files]` or `[target.files]` describes.
    ///
    /// # Errors
    /// A glob is too long.
    pub fn new(files: &FilesConfig, classes: usize) -> Result<Self> {
        Ok(Files {
            train: [
                Glob::new("files.images", &files.images)?,
                Glob::new("files.labels", &files.labels)?,
            ],
            val: [
                Glob::new("files.val_images", &files.val_images)?,
                Glob::new("files.val_labels", &files.val_labels)?,
            ],
            files: files.clone(),
            ids: Arc::new(IdMap::of_files(files, classes)),
        })
    }

    fn globs(&self, split: Split) -> &[Glob; 2] {
        match split {
            Split::Train => &self.train,
            Split::Val | Split::Test => &self.val,
        }
    }

    fn values(&self) -> String {
        let FilesConfig { ids, ignore, ignore_others, .. } = &self.files;
        let values = serde_json::json!({
            "ids": ids, "ignore": ignore, "ignore_others": ignore_others,
        });
        format!("{values:#}\n")
    }
}

impl Layout for Files {
    fn name(&self) -> &'static str {
        FILES
    }

    fn how_to_get(&self) -> &'static str {
        "The globs in the section `files` must match the images and labels"
    }

    fn images(&self, root: &Path, split: Split) -> Result<Vec<PathBuf>> {
        self.globs(split)[0].find(root)
    }

    fn raw_labels(&self, root: &Path) -> Result<Vec<RawLabel>> {
        let mut pairs = self.matched(root, Split::Train)?.pairs;
        let counted = pairs.len();
        if !self.files.val_labels.is_empty() {
            pairs.extend(self.matched(root, Split::Val)?.pairs);
        }
        let raw = (0..).zip(pairs).map(|(i, Pair { image, label })| RawLabel {
            image,
            label,
            train_ids: None,
            counted: i < counted,
        });
        Ok(raw.collect())
    }

    fn labels_of(&self, root: &Path, split: Split, image: &Path) -> Result<Vec<LabelFile>> {
        let [images, labels] = self.globs(split);
        let held = images
            .matches(root, image)
            .ok_or_else(|| Error::data(image, format!("is none of {}", images.setting)))?;
        Ok(vec![LabelFile { path: labels.fill(root, &held), ids: Arc::clone(&self.ids) }])
    }

    fn lists(&self, _: &Path) -> Result<Vec<(String, String)>> {
        Ok(vec![(VALUES.into(), self.values())])
    }

    fn check_statistics(&self, root: &Path) -> Result<()> {
        let path = root.join(VALUES);
        if file::read_text(&path, MAX_TEXT).ok() == Some(self.values()) {
            return Ok(());
        }
        let problem = "the class statistics are missing or were computed with other `ids`: run \
                       `udass-raw prepare files` with this configuration";
        Err(Error::data(path, problem))
    }
}

/// A glob pattern for paths below a root.
struct Glob {
    /// Configuration key and glob, for error messages.
    setting: String,
    /// Folders before the first wildcard.
    start: PathBuf,
    /// Path components after `start`.
    parts: Vec<String>,
    /// Regular expression for the path below `start`, with slashes and one capture group per
    /// wildcard.
    pattern: Regex,
}

impl Glob {
    fn new(key: &str, glob: &str) -> Result<Glob> {
        let setting = format!("{key} = \"{glob}\"");
        let names = glob.split('/').enumerate();
        let mut parts: Vec<&str> =
            names.filter(|(i, name)| *i == 0 || !name.is_empty()).map(|(_, name)| name).collect();
        let wild = |part: &&str| part.contains(['*', '?']);
        let fixed = parts.iter().position(wild).unwrap_or(parts.len()).min(parts.len() - 1);
        let start = parts.drain(..fixed).map(|part| if part.is_empty() { "/" } else { part });
        let start = start.collect();
        let mut pattern = String::from("^");
        for (i, part) in parts.iter().enumerate() {
            if *part == "**" {
                pattern += "(?:(.*)/)?";
                continue;
            }
            for c in part.chars() {
                match c {
                    '*' => pattern += "([^/]*)",
                    '?' => pattern += "([^/])",
                    c => pattern += &regex::escape(c.encode_utf8(&mut [0; 4])),
                }
            }
            if i + 1 < parts.len() {
                pattern.push('/');
            }
        }
        pattern.push('$');
        let pattern = Regex::new(&pattern)
            .map_err(|e| Error::config(format!("{setting} cannot be used: {e}")))?;
        Ok(Glob { setting, start, parts: parts.into_iter().map(String::from).collect(), pattern })
    }

    /// Returns the text that each wildcard matches in `path`, or None if the path does not match.
    fn matches(&self, root: &Path, path: &Path) -> Option<Vec<String>> {
        let below = path.strip_prefix(root.join(&self.start)).ok()?.to_str()?;
        let below = below.replace(std::path::MAIN_SEPARATOR, "/");
        let captures = self.pattern.captures(&below)?;
        let text = |i| captures.get(i).map_or(String::new(), |found| found.as_str().to_owned());
        Some((1..captures.len()).map(text).collect())
    }

    /// Returns the path whose wildcards are replaced by the texts in `held`, one for each.
    fn fill(&self, root: &Path, held: &[String]) -> PathBuf {
        let mut path = root.join(&self.start);
        let mut held = held.iter().map(String::as_str);
        for part in &self.parts {
            if part == "**" {
                path.push(held.next().unwrap_or(""));
                continue;
            }
            let mut name = String::new();
            for c in part.chars() {
                match c {
                    '*' | '?' => name += held.next().unwrap_or(""),
                    c => name.push(c),
                }
            }
            path.push(name);
        }
        path
    }

    /// Lists the matching files, sorted by path.
    fn find(&self, root: &Path) -> Result<Vec<PathBuf>> {
        let start = root.join(&self.start);
        if !start.is_dir() {
            return Err(Error::data(
                start,
                format!("this folder, from {}, is missing", self.setting),
            ));
        }
        let depth = match self.parts.iter().any(|part| part == "**") {
            true => usize::MAX,
            false => self.parts.len(),
        };
        let found = files(&start, depth, |path| self.matches(root, path).is_some())?;
        if found.is_empty() {
            return Err(Error::data(root, format!("no file matches {}", self.setting)));
        }
        Ok(found)
    }
}
