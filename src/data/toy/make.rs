//! Generates a toy world and prepares it like downloaded data.

use std::path::Path;

use super::world::{MARKER, ToyWorld};
use crate::Result;
use crate::data::layouts;
use crate::data::prepare::prepare;
use crate::observer::Observer;

/// Folders of a world and their layouts.
const FOLDERS: [(&str, &str); 4] =
    [("gta", "gta"), ("synthia", "synthia"), ("cityscapes", "cityscapes"), ("gta_val", "gta")];

/// Generates a world and prepares it for training. Reports one step of progress per image.
///
/// # Errors
/// [`ToyWorld::write`] or [`prepare`] fails.
pub fn make(dir: &Path, world: &ToyWorld, observer: &dyn Observer) -> Result<()> {
    world.write(dir, observer)?;
    for (folder, layout) in FOLDERS {
        prepare(layouts::find(layout)?, &dir.join(folder), false, &())?;
    }
    Ok(())
}

/// Returns whether `dir` is the folder of a toy world that is yet to be generated; an empty path is
/// no folder.
pub fn is_missing(dir: &Path) -> bool {
    !dir.as_os_str().is_empty() && !dir.join(MARKER).exists()
}

/// Generates the default world in `dir`, unless it already contains a complete world.
///
/// # Errors
/// [`make`] fails.
pub fn make_missing(dir: &Path, observer: &dyn Observer) -> Result<()> {
    if !is_missing(dir) {
        return Ok(());
    }
    observer.message(&format!("generating the toy world in {}", dir.display()));
    make(dir, &ToyWorld::default(), observer)
}
