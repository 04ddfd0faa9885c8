//! A file lock that admits one run per folder. The operating system releases it when the process
//! dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// A lock on a run's folder, released when dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks the folder for this process, and creates it if necessary.
    ///
    /// # Errors
    /// [`Error::Data`], with the process ID, if another process holds the lock; [`Error::Io`].
    pub fn take(folder: &Path) -> Result<FolderLock> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        let path = folder.join(".lock");
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false);
        let mut file = open.open(&path).map_err(|e| Error::io(&path, "open", e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The ID is only used in the message, so a failure to read it is ignored.
                let _ = file.read_to_string(&mut holder);
                let problem = format!(
                    "another run (process {}) is writing to this folder: wait for it, or choose \
                     another folder with --out",
                    holder.trim()
                );
                return Err(Error::data(folder, problem));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, "lock", e)),
        }
        let number = std::process::id();
        let message =
            file.rewind().and_then(|()| file.set_len(0)).and_then(|()| write!(file, "{number}"));
        message.map_err(|e| Error::io(&path, "write", e))?;
        Ok(FolderLock { _file: file })
    }
}
