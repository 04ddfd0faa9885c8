//! Files that are either the old version or the new one, never a torn one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{Error, Result};

/// What a write does, in this order; [`Step::Write`] as often as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Create,
    Write,
    Sync,
    Rename,
    SyncFolder,
}

/// Called before each step on the file of this path; its error is the step's.
pub type Fault = dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync;

static FAULT: RwLock<Option<Arc<Fault>>> = RwLock::new(None);

/// Lets steps fail, or the process die in them: how tests try a full disk and a power cut. Writes are
/// then made in halves, so that there is a middle to fail in.
pub fn inject(fault: Option<Arc<Fault>>) {
    *FAULT.write().unwrap_or_else(PoisonError::into_inner) = fault;
}

fn fault() -> Option<Arc<Fault>> {
    FAULT.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn before(step: Step, path: &Path) -> io::Result<()> {
    fault().map_or(Ok(()), |fault| fault(step, path))
}

/// The temporary file under way to `path`.
pub struct Target {
    file: File,
    path: PathBuf,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(fault) = fault() else { return self.file.write(bytes) };
        fault(Step::Write, &self.path)?;
        self.file.write(&bytes[..bytes.len().div_ceil(2)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Target {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Replaces `path` by what `write` writes.
///
/// The bytes go to `.<name>.tmp` in the same folder (made if need be), reach the disk, and take the
/// place of `path` by a rename, which reaches the disk too. When anything fails, the temporary file is
/// removed and the previous `path` stays as it was. One writer at a time for one path.
///
/// # Errors
/// [`Error::Io`] naming `path` and the cause; a full disk is called that.
pub fn write_atomic(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<Target>) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let temporary = temporary(path)?;
    let written = fill(&temporary, path, write).and_then(|()| {
        before(Step::Rename, path)?;
        fs::rename(&temporary, path)
    });
    if let Err(e) = written {
        // The first failure is the one to tell; a leftover is overwritten by the next attempt.
        let _ = fs::remove_file(&temporary);
        return Err(Error::io(path, "write", explain(e, path.exists())));
    }
    let synced = before(Step::SyncFolder, path).and_then(|()| sync_folder(folder(path)));
    synced.map_err(|e| Error::io(path, "write", e))
}

fn fill(
    temporary: &Path,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<Target>) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(folder) = temporary.parent() {
        fs::create_dir_all(folder)?;
    }
    before(Step::Create, path)?;
    let target = Target { file: File::create(temporary)?, path: path.into() };
    let mut file = BufWriter::with_capacity(1 << 20, target);
    write(&mut file)?;
    file.flush()?;
    before(Step::Sync, path)?;
    file.get_ref().file.sync_all()
}

/// Removes what killed writers of files in this folder have left.
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
        let e = io::Error::new(ErrorKind::InvalidInput, "the path names no file");
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

/// A rename is durable once its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync a folder; they order renames themselves.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Says what a full disk means for whoever reads it.
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
