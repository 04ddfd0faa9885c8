//! Directory walks, and deriving the path of one file from that of another.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Lists the files that `wanted` accepts, at most `depth` levels below `folder`, sorted by path as
/// text. Symbolic links are followed, because datasets are often linked from another disk. Names
/// that begin with a dot are no data: macOS leaves a `._NAME` for every file in archives and on
/// other systems' disks.
pub(super) fn files(
    folder: &Path,
    depth: usize,
    wanted: impl Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 1)];
    while let Some((folder, level)) = open.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, "list", e))?;
        for entry in entries {
            let path = entry.map_err(|e| Error::io(&folder, "list", e))?.path();
            if is_hidden(&path) {
                continue;
            }
            if path.is_dir() {
                if level < depth {
                    open.push((path, level + 1));
                }
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(found)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Replaces the suffix `from` of the file name by `to`.
fn with_suffix(path: &Path, from: &str, to: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(from)?;
    Some(path.with_file_name(OsString::from(format!("{name}{to}"))))
}

/// Replaces the suffix `from` of the file name by `to`.
///
/// # Errors
/// The name does not end in `from`.
pub(super) fn renamed(path: &Path, from: &str, to: &str) -> Result<PathBuf> {
    with_suffix(path, from, to)
        .ok_or_else(|| Error::data(path, format!("expected a name ending in {from}")))
}

/// Moves a path from below `from` to the same place below `to`.
///
/// # Errors
/// The path is not below `from`.
pub(super) fn moved(path: &Path, from: &Path, to: &Path) -> Result<PathBuf> {
    let relative = path.strip_prefix(from);
    relative
        .map(|relative| to.join(relative))
        .map_err(|_| Error::data(path, format!("expected a file below {}", from.display())))
}
