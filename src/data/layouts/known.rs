//! Looks up layouts by name.

use std::ops::Deref;

use super::adverse::{ACDC, DARK_ZURICH};
use super::cityscapes::Cityscapes;
use super::files::Files;
use super::flat::{GTA, SYNTHIA};
use super::layout::Layout;
use crate::config::{DomainConfig, FILES, LAYOUTS};
use crate::error::{Error, Result};

static KNOWN: [&dyn Layout; 5] = [&GTA, &SYNTHIA, &Cityscapes, &ACDC, &DARK_ZURICH];

/// The layout of a domain.
pub enum Domain {
    /// A built-in dataset.
    Known(&'static dyn Layout),
    /// A dataset that the configuration describes by globs.
    Files(Box<Files>),
}

impl Domain {
    /// Creates the layout that the configuration names.
    ///
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

/// Returns the built-in layout of this name.
///
/// # Errors
/// There is no such layout; the message lists those that exist.
pub fn find(name: &str) -> Result<&'static dyn Layout> {
    KNOWN.into_iter().find(|l| l.name() == name).ok_or_else(|| {
        Error::config(format!("unknown layout \"{name}\"; the layouts are {}", LAYOUTS.join(", ")))
    })
}
