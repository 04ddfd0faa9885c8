//! The bytes of an open file, read where they are needed, or of a file in memory.
//!
//! A memory map would be simpler, but a process that looks at a map beyond the end of a file that
//! was shortened is killed. Reading there is an error.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::file;
use crate::{Error, Result};

/// Bytes that are read at a time where they are not kept.
const PIECE: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub struct Content {
    path: PathBuf,
    source: Source,
    len: usize,
}

#[derive(Debug)]
enum Source {
    File(std::fs::File),
    Memory(Cow<'static, [u8]>),
}

impl Content {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Weights`] if the path leads to a folder.
    pub fn open(path: &Path) -> Result<Content> {
        let cannot = |e: io::Error| match e.kind() {
            ErrorKind::IsADirectory => {
                let problem = "is a folder: give a file, or a run's folder where one is expected";
                Error::weights(path, problem)
            }
            _ => Error::io(path, "open", e),
        };
        let file = file::open(path).map_err(cannot)?;
        let len = file.metadata().map_err(cannot)?.len();
        let len = usize::try_from(len).map_err(|_| cannot(ErrorKind::FileTooLarge.into()))?;
        Ok(Content { path: path.into(), source: Source::File(file), len })
    }

    /// Takes a file that is in memory. Errors call it `name`.
    pub fn in_memory(bytes: Cow<'static, [u8]>, name: &Path) -> Content {
        Content { path: name.into(), len: bytes.len(), source: Source::Memory(bytes) }
    }

    /// Returns the path that the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length of the file when it was opened, in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns bytes of the file.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file has become too short.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        self.allocate_and_read(range).map_err(|e| Error::io(&self.path, "read", e))
    }

    /// Returns bytes of the file like [`Content::read`], for readers whose errors name no file.
    pub fn bytes(&self, range: Range<usize>) -> Result<Vec<u8>, String> {
        self.allocate_and_read(range).map_err(|e| format!("cannot be read: {e}"))
    }

    /// Returns the first bytes of the file, at most `most`.
    ///
    /// # Errors
    /// The same as for [`Content::read`].
    pub fn start(&self, most: usize) -> Result<Vec<u8>> {
        self.read(0..most.min(self.len))
    }

    fn allocate_and_read(&self, range: Range<usize>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(range.len())?;
        bytes.resize(range.len(), 0);
        self.read_into(&mut bytes, range.start)?;
        Ok(bytes)
    }

    /// Calls `see` with the bytes of a range, piece by piece.
    ///
    /// # Errors
    /// The same as for [`Content::read`].
    pub fn each_piece(&self, range: Range<usize>, mut see: impl FnMut(&[u8])) -> Result<()> {
        let mut piece = vec![0; PIECE.min(range.len())];
        let mut at = range.start;
        while at < range.end {
            let bytes = &mut piece[..PIECE.min(range.end - at)];
            self.read_into(bytes, at).map_err(|e| Error::io(&self.path, "read", e))?;
            see(bytes);
            at += bytes.len();
        }
        Ok(())
    }

    /// Returns the CRC-32 of a range.
    ///
    /// # Errors
    /// The same as for [`Content::read`].
    pub fn crc32(&self, range: Range<usize>) -> Result<u32> {
        let mut hash = crc32fast::Hasher::new();
        self.each_piece(range, |bytes| hash.update(bytes))?;
        Ok(hash.finalize())
    }

    fn read_into(&self, bytes: &mut [u8], at: usize) -> io::Result<()> {
        let file = match &self.source {
            Source::File(file) => file,
            Source::Memory(all) => {
                let end = at.checked_add(bytes.len());
                let part = end.and_then(|end| all.get(at..end));
                bytes.copy_from_slice(part.ok_or(ErrorKind::UnexpectedEof)?);
                return Ok(());
            }
        };
        file.read_exact_at(bytes, at as u64).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => {
                io::Error::new(e.kind(), "it has become shorter since it was opened")
            }
            _ => e,
        })
    }
}

/// Reads a file from a position of its own.
pub(super) struct Cursor<'a> {
    content: &'a Content,
    at: u64,
}

impl<'a> Cursor<'a> {
    pub fn new(content: &'a Content) -> Cursor<'a> {
        Cursor { content, at: 0 }
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = match &self.content.source {
            Source::File(file) => file.read_at(bytes, self.at)?,
            Source::Memory(all) => {
                let start = usize::try_from(self.at).unwrap_or(usize::MAX).min(all.len());
                (&all[start..]).read(bytes)?
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => (self.content.len as u64).checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = at.ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
