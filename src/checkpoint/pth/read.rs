//! Detects the format of a torch file.

use super::contents::Contents;
use super::value::Outcome;
use super::{legacy, zip_format};

/// Returns whether the file looks like a torch file. It may still be malformed.
pub fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || legacy::is_pickle(bytes) || is_tar(bytes)
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Reads everything except the elements of the tensors.
///
/// # Errors
/// A description of the problem, if the file is malformed, unsupported, or beyond a limit.
pub fn read(bytes: &[u8]) -> Outcome<Contents> {
    if bytes.starts_with(b"PK\x03\x04") {
        return zip_format::read(bytes);
    }
    if is_tar(bytes) {
        return Err(
            "uses the tar format from before PyTorch 0.2: load it with a newer PyTorch and \
                    save it again"
                .into(),
        );
    }
    legacy::read(bytes)
}
