//! Verifies that a file is intact, its numbers are finite, and its network is complete.

use super::identity::{self, Identity};
use super::tensor_file::TensorFile;
use crate::{Error, Result};

/// Facts about a file that passed verification.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The file's contents, as identified by its keys and shapes.
    pub identity: Identity,
    /// Number of elements of all tensors, all of them finite.
    pub numbers: usize,
    /// Whether this program implements the network; if so, the file has all of its tensors.
    pub known: bool,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Whether the file holds checksums, all of which match.
    pub checked: bool,
    /// Whether the file's name ends in the first digits of its SHA-256, as torch.hub names files.
    pub named: bool,
}

/// Verifies a file.
///
/// # Errors
/// [`Error::Weights`] that describes the first problem found.
pub fn verify(file: &TensorFile) -> Result<Verified> {
    let sha256 = file.sha256()?;
    let stem = file.path().file_stem().unwrap_or_default().to_string_lossy();
    let named = stem.rsplit_once('-').map(|(_, digits)| digits);
    let named = named.filter(|d| d.len() >= 8 && d.chars().all(|c| c.is_ascii_hexdigit()));
    if let Some(digits) = named.filter(|digits| !sha256.starts_with(&digits.to_lowercase())) {
        let problem = format!(
            "its name says that its SHA-256 starts with {digits}, but it is {sha256}: download it \
             again"
        );
        return Err(Error::weights(file.path(), problem));
    }
    let mut counted = 0;
    for info in file.tensors() {
        counted += file.numbers(&info.name)?.len();
    }
    let identity = identity::identify(file)?;
    let complete = identity::complete(file, &identity).transpose()?;
    Ok(Verified {
        identity,
        numbers: counted,
        known: complete.is_some(),
        checked: file.has_checksums(),
        named: named.is_some(),
        sha256,
    })
}
