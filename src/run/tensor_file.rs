//! safetensors files: named tensors, read through a memory map, written as a stream.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, TensorView};

use super::atomic::write_atomic;
use crate::{Error, Result};

/// An open file.
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    header: Metadata,
}

impl TensorFile {
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        // SAFETY: the map is read only; a file that shrinks under it is the user's doing, and
        // checkpoints are replaced by a rename, which leaves an open map its old content.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "map", e))?;
        let (_, header) = SafeTensors::read_metadata(&map).map_err(|e| {
            let pytorch = path.extension().is_some_and(|e| e == "pth" || e == "pt");
            let hint =
                if pytorch { "; weights/README.md says how to convert PyTorch's" } else { "" };
            Error::weights(path, format!("not a whole safetensors file ({e}){hint}"))
        })?;
        Ok(TensorFile { path: path.into(), map, header })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The strings that the file carries beside its tensors.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Names and shapes, sorted by name.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut all: Vec<_> = (self.header.tensors().into_iter())
            .map(|(name, info)| (name, info.shape.clone()))
            .collect();
        all.sort();
        all
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>> {
        let problem = |e| Error::weights(&self.path, format!("tensor `{name}`: {e}"));
        SafeTensors::deserialize(&self.map).and_then(|all| all.tensor(name)).map_err(problem)
    }

    /// A tensor's numbers as single precision; f16, bf16, f64 and integers are converted.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        let view = self.view(name)?;
        let bytes = view.data();
        fn each<const N: usize>(bytes: &[u8], convert: fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
        }
        Ok(match view.dtype() {
            Dtype::F32 => each(bytes, f32::from_le_bytes),
            Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
            Dtype::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
            Dtype::U8 => bytes.iter().map(|&b| b as f32).collect(),
            other => {
                let problem = format!("tensor `{name}` is of type {other:?}, expected numbers");
                return Err(Error::weights(&self.path, problem));
            }
        })
    }

    /// The bytes of a tensor that must be of this type.
    pub fn bytes(&self, name: &str, dtype: Dtype) -> Result<Vec<u8>> {
        let view = self.view(name)?;
        if view.dtype() != dtype {
            let problem = format!("tensor `{name}` is {:?}, expected {dtype:?}", view.dtype());
            return Err(Error::weights(&self.path, problem));
        }
        Ok(view.data().to_vec())
    }
}

/// One tensor to be written; its bytes are asked for when their turn comes.
pub struct Entry<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Box<dyn FnOnce() -> Result<Vec<u8>> + 'a>,
}

/// Writes a safetensors file, all of it or nothing.
pub fn write(path: &Path, entries: Vec<Entry>, metadata: HashMap<String, String>) -> Result<()> {
    let mut infos = Vec::with_capacity(entries.len());
    let mut end = 0;
    for entry in &entries {
        let start = end;
        end += entry.shape.iter().product::<usize>() * entry.dtype.bitsize() / 8;
        let info = TensorInfo {
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            data_offsets: (start, end),
        };
        infos.push((entry.name.clone(), info));
    }
    let malformed = |e: String| Error::weights(path, format!("cannot describe the tensors: {e}"));
    let header = Metadata::new(Some(metadata), infos).map_err(|e| malformed(e.to_string()))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| malformed(e.to_string()))?;
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
    write(path, vec![entry], HashMap::new())
}
