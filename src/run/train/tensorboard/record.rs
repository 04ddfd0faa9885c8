//! Framing of an event file (TFRecord): length, its checksum, the record, its checksum.

use std::io::{self, ErrorKind, Read};

/// Records beyond this size in bytes are taken for damage; the largest of a run's are images of a
/// few MB.
const MAX_RECORD: u64 = 64 << 20;

/// Returns a record with its length and checksums.
pub fn framed(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(record.len() + 16);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum(&length).to_le_bytes());
    bytes.extend_from_slice(record);
    bytes.extend_from_slice(&checksum(record).to_le_bytes());
    bytes
}

/// Reads the next record; `None` at the end of the file, where a killed run may have left part of a
/// record.
///
/// # Errors
/// [`ErrorKind::InvalidData`] if a checksum is wrong or the record is too large.
pub fn next(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let (mut length, mut sum) = ([0; 8], [0; 4]);
    if !fill(from, &mut length)? || !fill(from, &mut sum)? {
        return Ok(None);
    }
    let count = u64::from_le_bytes(length);
    if checksum(&length) != u32::from_le_bytes(sum) || count > MAX_RECORD {
        return Err(io::Error::new(ErrorKind::InvalidData, "a record is damaged"));
    }
    // Not allocated at once, since the file may hold less than it says.
    let mut record = Vec::new();
    from.take(count).read_to_end(&mut record)?;
    if (record.len() as u64) < count || !fill(from, &mut sum)? {
        return Ok(None);
    }
    if checksum(&record) != u32::from_le_bytes(sum) {
        return Err(io::Error::new(ErrorKind::InvalidData, "a record is damaged"));
    }
    Ok(Some(record))
}

/// Fills a buffer; returns whether the file had enough bytes left.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// The masked CRC-32C of the format: checksums of data that holds checksums are weak, so they are
/// rotated and offset.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_tensorflow_frames_it() {
        // The bytes that TensorBoard's RecordWriter writes for b"udass".
        let head = [5, 0, 0, 0, 0, 0, 0, 0, 0xea, 0xb2, 0x04, 0x3e];
        let expected = [&head[..], b"udass", &[0x6c, 0x91, 0x13, 0x46]].concat();
        assert_eq!(framed(b"udass"), expected);
    }

    #[test]
    fn what_is_torn_ends_the_file_and_what_is_damaged_is_an_error() {
        let bytes = [framed(b"one"), framed(b""), framed(&[7; 300])].concat();
        let read = |bytes: &[u8]| {
            let mut from = bytes;
            let mut records = Vec::new();
            while let Some(record) = next(&mut from)? {
                records.push(record);
            }
            Ok::<_, io::Error>(records)
        };
        let whole = read(&bytes).unwrap();
        assert_eq!(whole, [b"one".to_vec(), Vec::new(), vec![7; 300]]);
        for end in 0..bytes.len() {
            let records = read(&bytes[..end]).unwrap();
            assert!(records.len() < 3 && records == whole[..records.len()], "{end}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged).unwrap_err().kind(), ErrorKind::InvalidData, "{at}");
        }
        let huge = (MAX_RECORD + 1).to_le_bytes();
        let huge = [&huge[..], &checksum(&huge).to_le_bytes()].concat();
        assert_eq!(read(&huge).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
