//! Writes safetensors files as a stream: each tensor's bytes are produced only when they are
//! written, so that a checkpoint is never in memory as a whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Map, Value as Json, json};

use super::atomic::write_atomic;
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

/// Writes a safetensors file atomically. Equal content gives identical bytes.
///
/// # Errors
/// [`Error::Io`]; [`Error::Weights`] if two tensors have the same name; the error of an entry whose
/// bytes cannot be produced.
pub fn write(path: &Path, entries: Vec<Entry>, strings: BTreeMap<String, String>) -> Result<()> {
    // The crate `safetensors` is not used here, because it keeps the header in a hash map, whose
    // order varies.
    let mut header = Map::new();
    if !strings.is_empty() {
        header.insert("__metadata__".into(), json!(strings));
    }
    let mut end = 0;
    for entry in &entries {
        let start = end;
        end += entry.shape.iter().product::<usize>() * entry.dtype.bitsize() / 8;
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
    // An error while producing bytes aborts the write; it is returned instead of the I/O error.
    let mut failed = None;
    let written = write_atomic(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for entry in entries {
            match (entry.bytes)() {
                Ok(bytes) => file.write_all(&bytes)?,
                Err(error) => {
                    failed = Some(error);
                    return Err(std::io::Error::other("the device failed"));
                }
            }
        }
        Ok(())
    });
    failed.map_or(written, Err)
}

/// Writes a file with one f32 tensor.
pub fn write_numbers(path: &Path, name: &str, shape: Vec<usize>, numbers: Vec<f32>) -> Result<()> {
    let bytes = move || Ok(bytemuck::cast_slice(&numbers).to_vec());
    let entry = Entry { name: name.into(), dtype: Dtype::F32, shape, bytes: Box::new(bytes) };
    write(path, vec![entry], BTreeMap::new())
}
