//! Zip files whose disk may fail. The crate `zip` panics when it is dropped after a write failed in
//! the middle of a file, so it is never told.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use zip::ZipWriter;

/// Writes a zip into `file`. `fill` adds its files.
///
/// # Errors
/// The error of `fill`, or the first one of the disk.
pub fn write_zip(
    file: &mut BufWriter<File>,
    fill: impl FnOnce(&mut ZipWriter<&mut StickyWriter>) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = StickyWriter { file, at: 0, end: 0, failed: None };
    let mut zip = ZipWriter::new(&mut writer);
    let filled = fill(&mut zip);
    let finished = match &filled {
        Ok(()) => zip.finish().map(drop).map_err(io::Error::from),
        Err(_) => {
            drop(zip);
            Ok(())
        }
    };
    writer.failed.map_or(filled.and(finished), Err)
}

/// A file that remembers its first error and then only keeps count of what it is given.
pub struct StickyWriter<'a> {
    file: &'a mut BufWriter<File>,
    at: u64,
    end: u64,
    failed: Option<io::Error>,
}

impl StickyWriter<'_> {
    fn attempt(&mut self, step: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        if self.failed.is_none() {
            self.failed = step(self.file).err();
        }
    }
}

impl Write for StickyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|file| file.write_all(bytes));
        self.at += bytes.len() as u64;
        self.end = self.end.max(self.at);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Write::flush);
        Ok(())
    }
}

impl Seek for StickyWriter<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => self.end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let at = SeekFrom::Start(self.at);
        self.attempt(|file| file.seek(at).map(drop));
        Ok(self.at)
    }
}
