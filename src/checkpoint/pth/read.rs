//! Telling the formats of torch files apart.

use super::contents::Contents;
use super::value::Outcome;
use super::{legacy, zip_format};

/// Whether a file that begins like this is a torch file, or pretends to be.
pub fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || legacy::is_pickle(bytes) || is_tar(bytes)
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Reads all but the numbers.
pub fn read(bytes: &[u8]) -> Outcome<Contents> {
    if bytes.starts_with(b"PK\x03\x04") {
        return zip_format::read(bytes);
    }
    if is_tar(bytes) {
        return Err("is of the format before PyTorch 0.2 (tar): load and save it with a newer \
                    PyTorch"
            .into());
    }
    legacy::read(bytes)
}
