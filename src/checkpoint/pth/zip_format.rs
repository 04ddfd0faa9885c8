//! Reads PyTorch's format since 1.6: a zip archive of `data.pkl` and one uncompressed record for
//! each storage.

use std::collections::HashMap;
use std::io::BufReader;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::contents::Contents;
use super::pickle;
use super::value::Outcome;
use super::walk::walk;
use crate::checkpoint::content::{Content, Cursor};

/// Maximum number of records in a file; a UDASS checkpoint has about 6000.
const MAX_RECORDS: usize = 1 << 18;

/// Reads a file in this format, except the elements of the tensors.
pub fn read(file: &Content) -> Outcome<Contents> {
    let broken = |e: zip::result::ZipError| format!("is not a complete zip file ({e})");
    let mut archive = ZipArchive::new(BufReader::new(Cursor::new(file))).map_err(broken)?;
    if archive.len() > MAX_RECORDS {
        return Err(format!("holds more than {MAX_RECORDS} records"));
    }
    let mut records: HashMap<String, Range<usize>> = HashMap::new();
    let mut checksums = Vec::new();
    let mut folder = None;
    for index in 0..archive.len() {
        let record = archive.by_index_raw(index).map_err(broken)?;
        let name = record.name().map_err(broken)?.into_owned();
        if record.compression() != CompressionMethod::Stored || record.encrypted() {
            return Err(format!(
                "its record {name} is compressed, which PyTorch's files never are"
            ));
        }
        let start = record.data_start().and_then(|start| usize::try_from(start).ok());
        let length = usize::try_from(record.size()).ok();
        let place = start.zip(length).and_then(|(start, length)| {
            let end = start.checked_add(length).filter(|&end| end <= file.len())?;
            Some(start..end)
        });
        let place = place.ok_or_else(|| format!("ends in the middle of its record {name}"))?;
        if let Some(root) = name.strip_suffix("data.pkl") {
            folder = Some(root.to_owned());
        }
        checksums.push((place.clone(), record.crc32()));
        records.insert(name, place);
    }
    let folder = folder.ok_or(
        "is a zip file but not a checkpoint: it has no data.pkl (TorchScript and other archives \
         are not supported)",
    )?;
    let find = |name: &str| records.get(&format!("{folder}{name}"));
    if let Some(order) = find("byteorder")
        && (order.len() != 6 || file.bytes(order.clone())? != b"little")
    {
        return Err("was written on a big-endian machine".into());
    }
    if find("constants.pkl").is_some() {
        return Err("is a TorchScript program, not a checkpoint".into());
    }
    let Some(pickle) = find("data.pkl") else { return Err("has no data.pkl".into()) };
    let end = pickle.end.min(pickle.start.saturating_add(pickle::MAX_BYTES));
    let pickle = pickle::read(&file.bytes(pickle.start..end)?)?;
    let mut contents = walk(&pickle, file.len(), |storage| {
        let name = format!("data/{}", storage.key);
        find(&name).cloned().ok_or_else(|| format!("has no record {folder}{name}"))
    })?;
    contents.checksums = checksums;
    Ok(contents)
}
