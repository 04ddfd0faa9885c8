//! Directory walks, and deriving the path of one file from that of another.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Maximum number of folders in a listing. Links that lead to each other could multiply them.
const MAX_FOLDERS: usize = 1 << 17;

/// Lists the files that `wanted` accepts, at most `depth` levels below `folder`, sorted by path as
/// text. Symbolic links are followed, because datasets are often linked from another disk, but not
/// back to a folder that contains them, and a file that is found directly is not listed again for a
/// link to its folder. Names that begin with a dot are no data: macOS leaves a `._NAME` for every
/// file in archives and on other systems' disks.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] if there are too many folders, or the name of a file is not UTF-8.
pub(in crate::data) fn files(
    folder: &Path,
    depth: usize,
    wanted: impl Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    // Each folder with the identities of those above it, and whether a link led to it.
    let mut open = vec![(folder.to_owned(), Vec::new(), false)];
    let mut folders = 0;
    while let Some((here, mut above, linked)) = open.pop() {
        let cannot = |e| Error::io(&here, "list", e);
        let identity = here.metadata().map(|found| (found.dev(), found.ino())).map_err(cannot)?;
        if above.contains(&identity) {
            continue;
        }
        above.push(identity);
        folders += 1;
        if folders > MAX_FOLDERS {
            let problem = format!(
                "contains more than {MAX_FOLDERS} folders: do links in it lead to each other?"
            );
            return Err(Error::data(folder, problem));
        }
        for entry in std::fs::read_dir(&here).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let path = entry.path();
            if is_hidden(&path) {
                continue;
            }
            if path.is_dir() {
                if above.len() < depth {
                    let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                    open.push((path, above.clone(), linked || link));
                }
            } else if wanted(&path) {
                found.push((linked, path, identity));
            } else {
                refuse_garbled(folder, &path, &wanted)?;
            }
        }
    }
    found.sort_by(|(_, a, _), (_, b, _)| {
        a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes())
    });
    let place = |path: &Path, folder| (folder, path.file_name().map(OsString::from));
    let direct = found.iter().filter(|(linked, ..)| !linked);
    let mut seen: HashSet<_> = direct.map(|(_, path, folder)| place(path, *folder)).collect();
    found.retain(|(linked, path, folder)| !linked || seen.insert(place(path, *folder)));
    Ok(found.into_iter().map(|(_, path, _)| path).collect())
}

/// Fails for a file that is wanted but for bytes of its name that are not UTF-8, since those of labels
/// and statistics are made from it as text.
fn refuse_garbled(folder: &Path, path: &Path, wanted: impl Fn(&Path) -> bool) -> Result<()> {
    let below = path.strip_prefix(folder).unwrap_or(path);
    match below.to_str() {
        None if wanted(&folder.join(below.to_string_lossy().as_ref())) => {
            Err(Error::data(path, "this name is not UTF-8: rename it"))
        }
        _ => Ok(()),
    }
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
