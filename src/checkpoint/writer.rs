//! Writes safetensors files as a stream: each tensor's bytes are produced only when they are
//! written, so that a checkpoint is never in memory as a whole.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Map, Value as Json, json};

use super::checksum;
use crate::file::atomic::write_atomic;
use crate::{Error, Result};

/// A tensor to be written.
pub struct Entry<'a> {
    /// The tensor's name.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The size of each axis.
    pub shape: Vec<usize>,
    /// Produces the elements (little-endian, row-major) when the tensor is written.
    pub bytes: Box<dyn FnOnce() -> Result<Vec<u8>> + 'a>,
}

impl Entry<'_> {
    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes a safetensors file atomically, with checksums of its content in the metadata. Equal
/// content gives identical bytes.
///
/// # Errors
/// [`Error::Io`]; [`Error::Weights`] if two tensors have the same name; the error of an entry whose
/// bytes cannot be produced.
pub fn write(
    path: &Path,
    entries: Vec<Entry>,
    mut strings: BTreeMap<String, String>,
) -> Result<()> {
    // The crate `safetensors` is not used here, because it keeps the header in a hash map, whose
    // order varies.
    let mut header = Map::new();
    let blank = checksum::blank(entries.len());
    let digits = blank.len();
    strings.insert(checksum::KEY.into(), blank);
    header.insert("__metadata__".into(), json!(strings));
    let mut end = 0;
    for entry in &entries {
        let start = end;
        end += entry.len();
        let info =
            json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end]});
        if header.insert(entry.name.clone(), info).is_some() {
            let problem = format!("two tensors would be named `{}`", entry.name);
            return Err(Error::weights(path, problem));
        }
    }
    let mut header = Json::Object(header).to_string().into_bytes();
    // The format aligns tensor data to 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let start = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    let place = checksum::place(&start, digits)
        .ok_or_else(|| Error::weights(path, "its header has no place for the checksums"))?;
    let of_header = checksum::of_header(&start, place.clone());
    // An error while producing bytes aborts the write; it is returned instead of the I/O error.
    let mut failed = None;
    let written = write_atomic(path, |file| {
        file.write_all(&start)?;
        let mut of_tensors = Vec::with_capacity(entries.len());
        for entry in entries {
            match (entry.bytes)() {
                Ok(bytes) => {
                    of_tensors.push(crc32fast::hash(&bytes));
                    file.write_all(&bytes)?;
                }
                Err(error) => {
                    failed = Some(error);
                    return Err(std::io::Error::other("the device failed"));
                }
            }
        }
        file.seek(SeekFrom::Start(place.start as u64))?;
        file.write_all(checksum::digits(of_header, &of_tensors).as_bytes())
    });
    failed.map_or(written, Err)
}

/// Writes a file with one f32 tensor.
pub fn write_numbers(path: &Path, name: &str, shape: Vec<usize>, numbers: Vec<f32>) -> Result<()> {
    let bytes = move || Ok(bytemuck::cast_slice(&numbers).to_vec());
    let entry = Entry { name: name.into(), dtype: Dtype::F32, shape, bytes: Box::new(bytes) };
    write(path, vec![entry], BTreeMap::new())
}
