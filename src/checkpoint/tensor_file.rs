//! Files of named tensors, safetensors and PyTorch's, read through a memory map: the one way that
//! weights and checkpoints come in.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::pth::{self, Node};
use crate::hex::hex;
use crate::{Error, Result};

/// The string under which a safetensors file made of a torch file carries what stood around its
/// tensors.
pub const TORCH_TREE: &str = "torch";

/// An open file.
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    /// In the file's order.
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    strings: BTreeMap<String, String>,
    torch: Option<Torch>,
}

/// What a torch file has beside its tensors.
struct Torch {
    tree: Node,
    skipped: Vec<(String, String)>,
    checksums: Vec<(Range<usize>, u32)>,
}

/// A tensor in a file.
#[derive(Debug)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes of the file from its first number on.
    place: Range<usize>,
    /// Elements from one to the next on each axis, where they are not in order without gaps.
    strides: Option<Vec<usize>>,
}

impl TensorInfo {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl TensorFile {
    /// Opens a file of either kind, told by its content.
    ///
    /// Only its description is read. What that may allocate has a limit, whatever the file says: a
    /// safetensors header has at most 100 MB, and [`pth`] says its own. A tensor, when asked for,
    /// never takes up more bytes than the file has (four times as many as single precision).
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        // SAFETY: the map is read only; a file that shrinks under it is the user's doing, and
        // checkpoints are replaced by a rename, which leaves an open map its old content.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "map", e))?;
        let problem = |problem: String| Error::weights(path, problem);
        let (tensors, strings, torch) = if pth::is_torch(&map) {
            let contents = pth::read(&map).map_err(problem)?;
            let tensors = contents.tensors.into_iter().map(of_torch).collect();
            let pth::Contents { tree, skipped, checksums, .. } = contents;
            (tensors, BTreeMap::new(), Some(Torch { tree, skipped, checksums }))
        } else {
            let (tensors, strings) = safetensors_header(&map).map_err(|e| {
                problem(format!("not a whole safetensors file ({e}), nor one of PyTorch's"))
            })?;
            (tensors, strings, None)
        };
        let index = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(TensorFile { path: path.into(), map, tensors, index, strings, torch })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in all.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    pub fn is_torch(&self) -> bool {
        self.torch.is_some()
    }

    /// The strings that a safetensors file carries beside its tensors.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.strings.get(key).map(String::as_str)
    }

    pub fn strings(&self) -> &BTreeMap<String, String> {
        &self.strings
    }

    /// What stands around the tensors of a torch file, or stood around them in the one that this was
    /// made of.
    pub fn tree(&self) -> Result<Option<Node>> {
        if let Some(torch) = &self.torch {
            return Ok(Some(torch.tree.clone()));
        }
        let Some(text) = self.metadata(TORCH_TREE) else { return Ok(None) };
        let json: Json = serde_json::from_str(text)
            .map_err(|e| Error::weights(&self.path, format!("its `{TORCH_TREE}`: {e}")))?;
        Node::from_json(&json).map(Some).map_err(|e| Error::weights(&self.path, e))
    }

    /// Metadata of a torch file that only a foreign function could make sense of: where, and which.
    pub fn skipped(&self) -> &[(String, String)] {
        self.torch.as_ref().map_or(&[], |torch| &torch.skipped)
    }

    /// That something was skipped, in a line for whoever uses the file.
    pub fn skipped_note(&self) -> Option<String> {
        let (first, class) = self.skipped().first()?;
        let more = match self.skipped().len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let path = self.path.display();
        Some(format!("{path}: skipped {first}, made by `{class}`, which was not run{more}"))
    }

    /// In the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&index| &self.tensors[index])
    }

    fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.find(name)
            .ok_or_else(|| Error::weights(&self.path, format!("tensor `{name}` is missing")))
    }

    /// A tensor's numbers as they stand in a file of its own: little-endian, row by row.
    pub fn data(&self, info: &TensorInfo) -> Cow<'_, [u8]> {
        let bytes = &self.map[info.place.clone()];
        let Some(strides) = &info.strides else {
            return Cow::Borrowed(bytes);
        };
        let size = info.dtype.bitsize() / 8;
        let mut gathered = Vec::with_capacity(info.elements() * size);
        let mut place = vec![0; info.shape.len()];
        for _ in 0..info.elements() {
            let at: usize = place.iter().zip(strides).map(|(i, stride)| i * stride).sum();
            gathered.extend_from_slice(&bytes[at * size..(at + 1) * size]);
            for axis in (0..place.len()).rev() {
                place[axis] += 1;
                if place[axis] < info.shape[axis] {
                    break;
                }
                place[axis] = 0;
            }
        }
        Cow::Owned(gathered)
    }

    /// A tensor's numbers as single precision; f16, bf16, f64 and integers are converted.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.tensor(name)?;
        let bytes = self.data(info);
        fn each<const N: usize>(bytes: &[u8], convert: fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
        }
        Ok(match info.dtype {
            Dtype::F32 => each(&bytes, f32::from_le_bytes),
            Dtype::F64 => each(&bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => each(&bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => each(&bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::I64 => each(&bytes, |b| i64::from_le_bytes(b) as f32),
            Dtype::I32 => each(&bytes, |b| i32::from_le_bytes(b) as f32),
            Dtype::I16 => each(&bytes, |b| i16::from_le_bytes(b) as f32),
            Dtype::I8 => each(&bytes, |b| i8::from_le_bytes(b) as f32),
            Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&b| b as f32).collect(),
            other => {
                let problem = format!("tensor `{name}` is of type {other:?}, expected numbers");
                return Err(Error::weights(&self.path, problem));
            }
        })
    }

    /// The bytes of a tensor that must be of this type.
    pub fn exactly(&self, name: &str, dtype: Dtype) -> Result<Vec<u8>> {
        let info = self.tensor(name)?;
        if info.dtype != dtype {
            let problem = format!("tensor `{name}` is {:?}, expected {dtype:?}", info.dtype);
            return Err(Error::weights(&self.path, problem));
        }
        Ok(self.data(info).into_owned())
    }

    /// SHA-256 of all tensors, whatever file they stand in: of names in alphabetical order, each
    /// with type, shape and numbers.
    pub fn digest(&self) -> String {
        let mut all: Vec<&TensorInfo> = self.tensors.iter().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hash = Sha256::new();
        for info in all {
            hash.update(format!("{}\0{:?}{:?}\0", info.name, info.dtype, info.shape));
            hash.update(self.data(info));
        }
        hex(&hash.finalize())
    }

    /// SHA-256 of the file itself, as `sha256sum` prints it.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(self.bytes()))
    }

    /// Checks what the container says of its own content.
    ///
    /// # Errors
    /// A record of a torch file does not match its checksum.
    pub fn check(&self) -> Result<()> {
        for (place, expected) in self.torch.iter().flat_map(|torch| &torch.checksums) {
            // PyTorch can leave checksums out, as zeros.
            if *expected != 0 && crc32fast::hash(&self.map[place.clone()]) != *expected {
                let problem = format!(
                    "bytes {} to {} do not match their checksum: copy or download it again",
                    place.start, place.end
                );
                return Err(Error::weights(&self.path, problem));
            }
        }
        Ok(())
    }
}

fn of_torch(tensor: pth::PthTensor) -> TensorInfo {
    let pth::PthTensor { name, dtype, shape, strides, mut place } = tensor;
    let empty = shape.contains(&0);
    let in_order = empty || {
        let expected = (1..=shape.len()).map(|axis| shape[axis..].iter().product::<usize>());
        // The stride of an axis of one place leads nowhere.
        let axes = shape.iter().zip(&strides).zip(expected);
        axes.into_iter().all(|((&side, &stride), expected)| side == 1 || stride == expected)
    };
    if in_order {
        let size = dtype.bitsize() / 8;
        place.end = place.start + shape.iter().product::<usize>() * size;
    }
    TensorInfo { name, dtype, shape, place, strides: (!in_order).then_some(strides) }
}

type Header = (Vec<TensorInfo>, BTreeMap<String, String>);

fn safetensors_header(bytes: &[u8]) -> Result<Header, safetensors::SafeTensorError> {
    let (length, header) = SafeTensors::read_metadata(bytes)?;
    let begin = 8 + length;
    let all = header.tensors();
    let tensors = header.offset_keys().into_iter().filter_map(|name| {
        let info = *all.get(&name)?;
        let (from, to) = info.data_offsets;
        let place = begin + from..begin + to;
        let (dtype, shape) = (info.dtype, info.shape.clone());
        Some(TensorInfo { name, dtype, shape, place, strides: None })
    });
    let strings = header.metadata().clone().unwrap_or_default();
    Ok((tensors.collect(), strings.into_iter().collect()))
}
