//! Looks up layouts by name.

use std::ops::Deref;
use std::path::Path;

use super::adverse::{ACDC, DARK_ZURICH};
use super::cityscapes::Cityscapes;
use super::files::Files;
use super::flat::{GTA, SYNTHIA};
use super::layout::{Layout, Pair, Split};
use crate::config::{DomainConfig, FILES, LAYOUTS};
use crate::error::{Error, Result};

/// Number of converted labels that are compared with the downloaded ones at the start.
const SAMPLES: usize = 4;

static KNOWN: [&dyn Layout; 5] = [&GTA, &SYNTHIA, &Cityscapes, &ACDC, &DARK_ZURICH];

/// A domain's dataset: its layout, and what to do with images that have no label.
pub struct Domain {
    layout: Kind,
    skip_unlabeled: bool,
}

enum Kind {
    /// A built-in dataset.
    Known(&'static dyn Layout),
    /// A dataset that the configuration describes by globs.
    Files(Box<Files>),
}

impl Domain {
    /// Creates the dataset that the configuration describes.
    ///
    /// # Errors
    /// The configuration names a layout that does not exist.
    pub fn new(config: &DomainConfig, classes: usize) -> Result<Domain> {
        let layout = match config.layout.as_str() {
            FILES => Kind::Files(Box::new(Files::new(&config.files, classes)?)),
            name => Kind::Known(find(name)?),
        };
        Ok(Domain { layout, skip_unlabeled: config.skip_unlabeled })
    }

    /// Returns the images of a split with their labels, and a note if images without a label were
    /// left out, as `skip_unlabeled` allows.
    ///
    /// # Errors
    /// The folder is missing or empty; images have no label and may not be left out, or all of
    /// them would be; converted labels hold something else than the downloaded ones.
    pub fn labeled(&self, root: &Path, split: Split) -> Result<(Vec<Pair>, Option<String>)> {
        let matched = self.matched(root, split)?;
        self.check_converted(root, split, &matched.pairs)?;
        let Some(missing) = matched.missing() else { return Ok((matched.pairs, None)) };
        if !self.skip_unlabeled {
            let Error::Data { path, problem } = missing else { return Err(missing) };
            let problem = format!(
                "{problem}. To leave them out, set skip_unlabeled = true in the dataset's section, \
                 [source] or [target]"
            );
            return Err(Error::data(path, problem));
        }
        if matched.pairs.is_empty() {
            return Err(missing);
        }
        let (without, with) = (matched.unlabeled.len(), matched.pairs.len());
        let note = format!(
            "{}: {without} of {} images have no label and are left out (skip_unlabeled)",
            root.display(),
            with + without
        );
        Ok((matched.pairs, Some(note)))
    }
}

impl Domain {
    /// Compares a few converted labels with the downloaded ones. Other tools write files of the same
    /// name with other ids, such as Cityscapes' categories, and nothing else would notice.
    fn check_converted(&self, root: &Path, split: Split, pairs: &[Pair]) -> Result<()> {
        if !self.converts() {
            return Ok(());
        }
        for pair in pairs.iter().step_by(pairs.len().div_ceil(SAMPLES).max(1)) {
            let choices = self.labels_of(root, split, &pair.image)?;
            let [converted, downloaded] = choices.as_slice() else { continue };
            if pair.label != *converted {
                continue;
            }
            // What cannot be read is reported when it is needed.
            let (Ok(found), Ok(expected)) = (converted.load(), downloaded.load()) else { continue };
            let differing = found.data.iter().zip(&expected.data).filter(|(a, b)| a != b).count();
            if found.size != expected.size || differing * 10 > expected.data.len() {
                let problem = format!(
                    "this converted label does not hold what {} gives: run `udass-raw prepare` on \
                     this dataset, which converts it again",
                    downloaded.path.display()
                );
                return Err(Error::data(&converted.path, problem));
            }
        }
        Ok(())
    }
}

impl Deref for Domain {
    type Target = dyn Layout;

    fn deref(&self) -> &Self::Target {
        match &self.layout {
            Kind::Known(layout) => *layout,
            Kind::Files(files) => files.as_ref(),
        }
    }
}

/// Returns the built-in layout of this name.
///
/// # Errors
/// There is no such layout; the message lists those that exist.
pub fn find(name: &str) -> Result<&'static dyn Layout> {
    KNOWN.into_iter().find(|l| l.name() == name).ok_or_else(|| {
        Error::config(format!("unknown layout \"{name}\"; the layouts are {}", LAYOUTS.join(", ")))
    })
}
