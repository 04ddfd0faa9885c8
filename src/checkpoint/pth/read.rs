//! Detects the format of a torch file.

use super::contents::Contents;
use super::value::Outcome;
use super::{legacy, zip_format};
use crate::checkpoint::content::Content;

/// Returns whether a file that starts with these bytes looks like a torch file. It may still be
/// malformed.
pub fn is_torch(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || legacy::is_pickle(start) || is_tar(start)
}

fn is_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}

/// Reads everything except the elements of the tensors.
///
/// # Errors
/// A description of the problem, if the file cannot be read or is malformed, unsupported, or beyond
/// a limit.
pub fn read(file: &Content) -> Outcome<Contents> {
    let start = file.bytes(0..file.len().min(512))?;
    if start.starts_with(b"PK\x03\x04") {
        return zip_format::read(file);
    }
    if is_tar(&start) {
        return Err(
            "uses the tar format from before PyTorch 0.2: load it with a newer PyTorch and \
                    save it again"
                .into(),
        );
    }
    legacy::read(file)
}
