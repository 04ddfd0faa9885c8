//! A toy world drawn and prepared, as downloaded data is.

use std::path::Path;

use super::world::{MARKER, ToyWorld};
use crate::Result;
use crate::data::layouts;
use crate::data::prepare::prepare;
use crate::observer::Observer;

/// Folders of a world, with their layouts.
const FOLDERS: [(&str, &str); 4] =
    [("gta", "gta"), ("synthia", "synthia"), ("cityscapes", "cityscapes"), ("gta_val", "gta")];

/// Draws a world and prepares it for training. The steps are its pictures.
///
/// # Errors
/// What [`ToyWorld::write`] and [`prepare`] fail with.
pub fn make(dir: &Path, world: &ToyWorld, observer: &dyn Observer) -> Result<()> {
    world.write(dir, observer)?;
    for (folder, layout) in FOLDERS {
        prepare(layouts::find(layout)?, &dir.join(folder), &())?;
    }
    Ok(())
}

/// Makes the default world in `dir`, unless a whole world is there already.
///
/// # Errors
/// As [`make`].
pub fn make_missing(dir: &Path, observer: &dyn Observer) -> Result<()> {
    if dir.join(MARKER).exists() {
        return Ok(());
    }
    observer.message(&format!("drawing the toy world in {}", dir.display()));
    make(dir, &ToyWorld::default(), observer)
}
