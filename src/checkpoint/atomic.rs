//! Atomic file replacement: a reader sees the old or the new version, never a partial one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file;

/// Replaces the file at `path` with what `write` writes.
///
/// The bytes go to `.<name>.tmp` in the same folder, which is created if necessary. That file is
/// synced and renamed to `path`, and then the folder is synced. On failure, the temporary file is
/// removed and the previous file stays unchanged. Each path must have only one writer at a time.
///
/// # Errors
/// [`Error::Io`] with `path` and the cause; a full disk is reported as such.
pub fn write_atomic(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let temporary = temporary(path)?;
    let written = fill(&temporary, write).and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = written {
        // Report the original error; a leftover file is overwritten by the next attempt.
        let _ = fs::remove_file(&temporary);
        return Err(Error::io(path, "write", explain(e, path.exists())));
    }
    sync_folder(folder(path)).map_err(|e| Error::io(path, "write", e))
}

fn fill(
    temporary: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(folder) = temporary.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = BufWriter::with_capacity(1 << 20, file::create_temporary(temporary)?);
    write(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()
}

/// Replaces the file at `to` with the one at `from`: by a hard link where the file system has them,
/// which takes no space of its own, and otherwise by a copy.
///
/// # Errors
/// [`Error::Io`] with the path and the cause; the previous file at `to` stays unchanged.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    let temporary = temporary(to)?;
    let linked = match fs::remove_file(&temporary) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => fs::hard_link(from, &temporary)
            .or_else(|_| copy(from, &temporary))
            .and_then(|()| fs::rename(&temporary, to)),
    };
    linked.and_then(|()| sync_folder(folder(to))).map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io(to, "write", explain(e, to.exists()))
    })
}

fn copy(from: &Path, temporary: &Path) -> io::Result<()> {
    let mut copy = file::create_temporary(temporary)?;
    io::copy(&mut file::open(from)?, &mut copy)?;
    copy.sync_all()
}

/// Removes the temporary files that killed writers left in this folder.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(".tmp") {
            let path = entry.path();
            fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
    }
    Ok(())
}

fn temporary(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let e = io::Error::new(ErrorKind::InvalidInput, "the path has no file name");
        return Err(Error::io(path, "write", e));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
    Ok(path.with_file_name(hidden))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Syncs a folder, which makes a rename in it durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match file::open_folder(folder)?.sync_all() {
        // Some network file systems cannot sync a folder, but order renames themselves.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Adds a readable explanation to errors of a full disk.
fn explain(e: io::Error, previous: bool) -> io::Error {
    let kept = if previous { "; the previous file is unchanged" } else { "" };
    match e.kind() {
        ErrorKind::StorageFull => io::Error::new(e.kind(), format!("the disk is full{kept} ({e})")),
        ErrorKind::QuotaExceeded => {
            io::Error::new(e.kind(), format!("the disk quota is used up{kept} ({e})"))
        }
        _ => e,
    }
}
