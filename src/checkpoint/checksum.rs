//! Checksums of a safetensors file, in its metadata string [`KEY`]: eight hexadecimal digits each for
//! the CRC-32 of the header and then of every tensor, in the order of the file. The header's is that
//! of the file's start up to the first tensor, with zeros in place of all these digits.

use std::ops::Range;

/// The metadata key of the checksums.
pub const KEY: &str = "crc32";
/// Digits of one checksum.
const DIGITS: usize = 8;

/// Returns what stands in the header until the checksums are known.
pub fn blank(tensors: usize) -> String {
    "0".repeat(DIGITS * (tensors + 1))
}

/// Returns where the digits are in a header, which begins with its length in 8 bytes.
pub fn place(start: &[u8], digits: usize) -> Option<Range<usize>> {
    // A quotation mark inside a JSON string is escaped, so this is the key and nothing else.
    let key = format!("\"{KEY}\":\"");
    let at = start.windows(key.len()).position(|bytes| bytes == key.as_bytes())? + key.len();
    (at + digits <= start.len()).then_some(at..at + digits)
}

/// Returns the CRC-32 of a file's start, with zeros in place of the digits at `digits`.
pub fn of_header(start: &[u8], digits: Range<usize>) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&start[..digits.start]);
    hash.update("0".repeat(digits.len()).as_bytes());
    hash.update(&start[digits.end..]);
    hash.finalize()
}

/// Writes checksums as digits.
pub fn digits(header: u32, tensors: &[u32]) -> String {
    std::iter::once(&header).chain(tensors).map(|crc| format!("{crc:08x}")).collect()
}

/// Reads the checksums of the header and of each tensor from their digits.
pub fn parse(digits: &str) -> Option<(u32, Vec<u32>)> {
    let parts = digits.as_bytes().chunks(DIGITS);
    let number = |part| u32::from_str_radix(std::str::from_utf8(part).ok()?, 16).ok();
    let mut all: Vec<u32> = parts.map(number).collect::<Option<_>>()?;
    (!all.is_empty()).then(|| (all.remove(0), all))
}
