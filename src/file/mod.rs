//! Opens the files that a user names. Everything the library reads is opened here, because a path
//! can lead to anything: opening a pipe blocks until somebody writes to it, and a device may never
//! end.

pub mod atomic;
pub(crate) mod zip;

use std::ffi::{CString, c_int};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Maximum size in bytes of a list or the statistics of a data set, an evaluation or a log. The
/// statistics of GTA's 25 000 images have 10 MB, and a log grows by 0.7 MB in 1000 iterations.
pub(crate) const MAX_TEXT: u64 = 256 << 20;

/// Opens a regular file for reading.
///
/// # Errors
/// Anything else is refused by name, without waiting for it; a folder with
/// [`ErrorKind::IsADirectory`].
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().read(true), 0)
}

/// Opens a folder, to sync it.
///
/// # Errors
/// Anything else is refused, without waiting for it.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}

/// Opens a regular file, or creates it, as `options` say, with additional flags of `open(2)`.
///
/// # Errors
/// The same as for [`open`].
pub(crate) fn open_with(path: &Path, options: &OpenOptions, flags: c_int) -> io::Result<File> {
    // Even opening some devices has an effect, such as rewinding a tape.
    let links_are_refused = flags & libc::O_NOFOLLOW != 0;
    match if links_are_refused { path.symlink_metadata() } else { path.metadata() } {
        Ok(found) => must_be_regular(&found)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut options = options.clone();
    let file = options.custom_flags(flags | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    // The path may lead elsewhere by now.
    must_be_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// The same as for [`open`]; a larger file is refused with [`ErrorKind::FileTooLarge`].
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let too_large = || {
        let problem = format!("it has more than {} MiB", most >> 20);
        io::Error::new(ErrorKind::FileTooLarge, problem)
    };
    // A file may grow while it is read, and those of /proc have no size.
    let said = file.metadata()?.len();
    if said > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(said as usize)?;
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// Creates a temporary file in place of anything that a killed process has left at its path. A link
/// there is removed and never followed.
///
/// # Errors
/// Fails if another process creates it at the same time, or if the path is a folder's.
pub(crate) fn create_temporary(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => File::create_new(path),
    }
}

/// Reads a text of at most `most` bytes.
///
/// # Errors
/// The same as for [`read`]; a text that is not UTF-8 is refused with [`ErrorKind::InvalidData`].
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Returns the bytes that this process may still write to the file system of a folder.
///
/// # Errors
/// The folder does not exist, or may not be looked up.
pub(crate) fn free_space(folder: &Path) -> io::Result<u64> {
    let path = c_path(folder)?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and the out-pointer refers to a local.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let found = unsafe { found.assume_init() };
    // The counts are narrower on other systems.
    #[allow(clippy::unnecessary_cast)]
    Ok((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}

/// Returns whether this process may create files in a folder, without creating one.
///
/// # Errors
/// The system's reason why it may not.
pub(crate) fn check_writable(folder: &Path) -> io::Result<()> {
    let path = c_path(folder)?;
    // SAFETY: the path ends with a zero.
    match unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "its name holds a zero byte"))
}

fn must_be_regular(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    if kind.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder"));
    }
    let what = if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "a device"
    };
    Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {what}, not a file")))
}
