//! Atomic file replacement: a reader sees the old or the new version, never a partial one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file;

/// What stands before the number of the process in the name of a temporary file of [`replace`].
const PROCESS: &str = ".udass-";

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
    let synced = |file: &mut BufWriter<File>| {
        write(file)?;
        file.flush()?;
        file.get_ref().sync_all()
    };
    through(path, &temporary(path, ".tmp")?, synced)?;
    sync_folder(folder(path)).map_err(|e| Error::io(path, "write", e))
}

/// Replaces a file that can be made again, like [`write_atomic`] but without syncing: if the machine
/// fails, what was written last may be lost. Paths may have several writers.
///
/// # Errors
/// The same as for [`write_atomic`].
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    through(path, &temporary(path, &format!("{PROCESS}{}.tmp", std::process::id()))?, write)
}

/// Writes a file through a temporary one.
fn through(
    path: &Path,
    temporary: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let filled = || {
        fs::create_dir_all(folder(path))?;
        let mut file = BufWriter::with_capacity(1 << 20, file::create_temporary(temporary)?);
        write(&mut file)?;
        file.flush()?;
        drop(file);
        fs::rename(temporary, path)
    };
    filled().map_err(|e| {
        // Report the original error; a leftover file is overwritten by the next attempt.
        let _ = fs::remove_file(temporary);
        Error::io(path, "write", explain(e, path.exists()))
    })
}

/// Replaces the file at `to` with the one at `from`: by a hard link where the file system has them,
/// which takes no space of its own, and otherwise by a copy.
///
/// # Errors
/// [`Error::Io`] with the path and the cause; the previous file at `to` stays unchanged.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    let temporary = temporary(to, ".tmp")?;
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

/// Removes the temporary files that killed writers left in this folder, in which none may write now.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    remove_temporary(folder, |_| true)
}

/// Removes the temporary files that killed processes left in this folder by [`replace`].
///
/// # Errors
/// [`Error::Io`].
pub fn remove_leftovers_of_dead_processes(folder: &Path) -> Result<()> {
    // A process of an earlier container often had the same number.
    let this = std::process::id();
    let runs = |process: u32| process != this && Path::new(&format!("/proc/{process}")).exists();
    remove_temporary(folder, |name| {
        let process = name.rsplit_once(PROCESS).and_then(|(_, number)| number.parse().ok());
        process.is_some_and(|process| !runs(process))
    })
}

/// Removes temporary files; `which` is told what their names hold between the point and `.tmp`.
fn remove_temporary(folder: &Path, which: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
        if inner.is_some_and(&which) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
    }
    Ok(())
}

fn temporary(path: &Path, ending: &str) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let e = io::Error::new(ErrorKind::InvalidInput, "the path has no file name");
        return Err(Error::io(path, "write", e));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(ending);
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
