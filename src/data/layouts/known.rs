//! Layouts by name.

use std::ops::Deref;

use super::adverse::{ACDC, DARK_ZURICH};
use super::cityscapes::Cityscapes;
use super::files::Files;
use super::flat::{GTA, SYNTHIA};
use super::layout::Layout;
use crate::config::{DomainConfig, FILES, LAYOUTS};
use crate::error::{Error, Result};

static KNOWN: [&dyn Layout; 5] = [&GTA, &SYNTHIA, &Cityscapes, &ACDC, &DARK_ZURICH];

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
