//! Writing safetensors files as a stream: a tensor's bytes are asked for when their turn comes, so
//! that a checkpoint is never in memory as a whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Map, Value as Json, json};

use super::atomic::write_atomic;
use crate::{Error, Result};

/// One tensor to be written; its bytes are asked for when their turn comes.
pub struct Entry<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Box<dyn FnOnce() -> Result<Vec<u8>> + 'a>,
}

/// Writes a safetensors file, all of it or nothing. Equal content makes equal bytes.
pub fn write(path: &Path, entries: Vec<Entry>, strings: BTreeMap<String, String>) -> Result<()> {
    // Written here rather than by the crate, whose header is a hash map in an order of its own.
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
            let problem = format!("two tensors would be called `{}`", entry.name);
            return Err(Error::weights(path, problem));
        }
    }
    let mut header = Json::Object(header).to_string().into_bytes();
    // Tensor data starts at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    // A device that fails in mid-file fails the whole write, with its own message.
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

/// Writes one tensor of single-precision numbers.
pub fn write_numbers(path: &Path, name: &str, shape: Vec<usize>, numbers: Vec<f32>) -> Result<()> {
    let bytes = move || Ok(bytemuck::cast_slice(&numbers).to_vec());
    let entry = Entry { name: name.into(), dtype: Dtype::F32, shape, bytes: Box::new(bytes) };
    write(path, vec![entry], BTreeMap::new())
}
