//! Reads files of named tensors (safetensors and PyTorch's). All weights and checkpoints are loaded
//! this way.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::checksum;
use super::content::Content;
use super::foreign;
use super::pth::{self, Node};
use crate::hex::hex;
use crate::{Error, Result};

/// The metadata key of a safetensors file under which a converted torch file keeps the tree around
/// its tensors.
pub const TORCH_TREE: &str = "torch";

/// Maximum size of the header of a safetensors file in bytes, as the format's own library has it.
const MAX_HEADER: u64 = 100_000_000;

/// An open file of named tensors.
pub struct TensorFile {
    content: Arc<Content>,
    /// The tensors, in the order of the file.
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    strings: BTreeMap<String, String>,
    torch: Option<Arc<Torch>>,
    checked: bool,
}

/// The content of a torch file, without its tensors.
struct Torch {
    tree: Node,
    skipped: Vec<(String, String)>,
    checksums: Vec<(Range<usize>, u32)>,
}

/// The description of a tensor in a file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// The tensor's name.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The size of each axis.
    pub shape: Vec<usize>,
    /// The parts of the file that hold the elements, stacked along the first axis.
    parts: Vec<Part>,
}

/// A tensor in a file that is a part, or all, of the one that is described.
#[derive(Clone, Debug)]
struct Part {
    shape: Vec<usize>,
    /// Byte range in the file, from the first element.
    place: Range<usize>,
    /// The stride of each axis in elements, if the part is not contiguous.
    strides: Option<Vec<usize>>,
}

impl TensorInfo {
    fn new(name: String, dtype: Dtype, part: Part) -> TensorInfo {
        TensorInfo { name, dtype, shape: part.shape.clone(), parts: vec![part] }
    }

    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns where the elements begin in a file that holds them in order.
    fn start(&self) -> usize {
        self.parts.first().map_or(0, |part| part.place.start)
    }

    /// Returns the size of the elements in bytes.
    fn bytes(&self) -> usize {
        self.elements() * self.dtype.bitsize() / 8
    }

    /// Returns the same tensor under another name.
    pub(super) fn named(&self, name: String) -> TensorInfo {
        TensorInfo { name, ..self.clone() }
    }

    /// Returns the tensor with `below` stacked under it along the first axis. If they do not match,
    /// it stays alone, and its shape shows what is wrong.
    pub(super) fn stacked(&self, below: &TensorInfo, name: String) -> TensorInfo {
        let mut both = self.named(name);
        let tails = self.shape.get(1..).zip(below.shape.get(1..));
        if self.dtype == below.dtype && tails.is_some_and(|(a, b)| a == b) {
            both.shape[0] += below.shape[0];
            both.parts.extend(below.parts.iter().cloned());
        }
        both
    }

    /// Returns some rows of a tensor. One that is not contiguous stays whole, and its shape shows
    /// what is wrong.
    pub(super) fn rows(&self, rows: Range<usize>, name: String) -> TensorInfo {
        let mut some = self.named(name);
        let [Part { shape, place, strides: None }] = some.parts.as_mut_slice() else { return some };
        let row = shape.get(1..).unwrap_or_default().iter().product::<usize>();
        let bytes = row * self.dtype.bitsize() / 8;
        *place = place.start + rows.start * bytes..place.start + rows.end * bytes;
        if let Some(first) = shape.first_mut() {
            *first = rows.len();
        }
        some.shape.clone_from(shape);
        some
    }

    /// Returns a 1×1 convolution as the matrix that it is; other tensors keep their shape.
    pub(super) fn matrix(&self, name: String) -> TensorInfo {
        let mut matrix = self.named(name);
        if let [rows, columns, 1, 1] = self.shape[..] {
            matrix.shape = vec![rows, columns];
        }
        matrix
    }
}

impl TensorFile {
    /// Opens a file of either kind, which is detected from its content.
    ///
    /// Checksums are verified where the file holds them: this program's files and PyTorch's zip
    /// format do. Only the description of the tensors is kept. Memory use is bounded even for a
    /// hostile file: a safetensors header has at most 100 MB, and [`pth`] has its own limits. A
    /// loaded tensor is never larger than the file (four times as large when converted to single
    /// precision).
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened; [`Error::Weights`] if its format is not known or
    /// it is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        Self::read(Content::open(path.as_ref())?)
    }

    /// Opens a file that is in memory, like [`open`](Self::open). Errors call it `name`.
    ///
    /// # Errors
    /// [`Error::Weights`] if the file's format is not known or it is damaged.
    pub fn from_bytes(bytes: Cow<'static, [u8]>, name: &str) -> Result<TensorFile> {
        Self::read(Content::in_memory(bytes, Path::new(name)))
    }

    fn read(content: Content) -> Result<TensorFile> {
        let start = content.start(4096)?;
        let path = content.path().to_path_buf();
        let problem = |problem: String| Error::weights(&path, problem);
        let (tensors, strings, torch) = if pth::is_torch(&start) {
            let contents = pth::read(&content).map_err(problem)?;
            let tensors = contents.tensors.into_iter().map(of_torch).collect();
            let pth::Contents { tree, skipped, checksums, .. } = contents;
            (tensors, BTreeMap::new(), Some(Arc::new(Torch { tree, skipped, checksums })))
        } else {
            let (tensors, strings) = safetensors_header(&content)?.map_err(|e| {
                problem(match foreign::describe(&start) {
                    Some(what) => what.into(),
                    None => format!("neither a complete safetensors file ({e}) nor a PyTorch file"),
                })
            })?;
            (tensors, strings, None)
        };
        let mut file = TensorFile {
            content: Arc::new(content),
            index: index(&tensors),
            tensors,
            strings,
            torch,
            checked: false,
        };
        let digits = file.strings.remove(checksum::KEY);
        file.checked = match (&file.torch, &digits) {
            (Some(torch), _) => file.check_records(&torch.checksums)?,
            (None, Some(digits)) => file.check_tensors(digits)?,
            (None, None) => false,
        };
        Ok(file)
    }

    /// Returns a view of the same file with other tensors, which describe parts of it.
    pub(super) fn with_tensors(&self, tensors: Vec<TensorInfo>) -> TensorFile {
        TensorFile {
            content: Arc::clone(&self.content),
            index: index(&tensors),
            tensors,
            strings: self.strings.clone(),
            torch: self.torch.clone(),
            checked: self.checked,
        }
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        self.content.path()
    }

    /// Returns whether this is a PyTorch file.
    pub fn is_torch(&self) -> bool {
        self.torch.is_some()
    }

    /// Returns a metadata string of a safetensors file.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.strings.get(key).map(String::as_str)
    }

    /// Returns all metadata strings of a safetensors file.
    pub fn strings(&self) -> &BTreeMap<String, String> {
        &self.strings
    }

    /// Returns the tree around the tensors of a torch file, or of the torch file that this file was
    /// converted from.
    ///
    /// # Errors
    /// [`Error::Weights`] if the stored tree is malformed.
    pub fn tree(&self) -> Result<Option<Node>> {
        if let Some(torch) = &self.torch {
            return Ok(Some(torch.tree.clone()));
        }
        let Some(text) = self.metadata(TORCH_TREE) else { return Ok(None) };
        let json: Json = serde_json::from_str(text)
            .map_err(|e| Error::weights(self.path(), format!("its `{TORCH_TREE}`: {e}")))?;
        Node::from_json(&json).map(Some).map_err(|e| Error::weights(self.path(), e))
    }

    /// Returns the metadata of a torch file that was skipped because it belongs to an unknown class
    /// or function: the location, and the name of the class.
    pub fn skipped(&self) -> &[(String, String)] {
        self.torch.as_ref().map_or(&[], |torch| &torch.skipped)
    }

    /// Returns a one-line message for the user if any metadata was skipped.
    pub fn skipped_note(&self) -> Option<String> {
        let (first, class) = self.skipped().first()?;
        let more = match self.skipped().len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let path = self.path().display();
        Some(format!("{path}: skipped {first}: `{class}` was not executed{more}"))
    }

    /// Returns the tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Finds a tensor by name.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&index| &self.tensors[index])
    }

    fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.find(name)
            .ok_or_else(|| Error::weights(self.path(), format!("tensor `{name}` is missing")))
    }

    /// Reads a tensor's elements as contiguous little-endian bytes in row-major order.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file was shortened since it was opened.
    pub fn data(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let size = info.dtype.bitsize() / 8;
        match info.parts.as_slice() {
            [part] => self.part(part, size),
            parts => {
                let parts: Result<Vec<_>> = parts.iter().map(|p| self.part(p, size)).collect();
                Ok(parts?.concat())
            }
        }
    }

    /// Reads the elements of a part; `size` is that of an element in bytes.
    fn part(&self, part: &Part, size: usize) -> Result<Vec<u8>> {
        let bytes = self.content.read(part.place.clone())?;
        let Some(strides) = &part.strides else {
            return Ok(bytes);
        };
        let elements = part.shape.iter().product();
        let mut gathered = Vec::with_capacity(elements * size);
        let mut place = vec![0; part.shape.len()];
        for _ in 0..elements {
            let at: usize = place.iter().zip(strides).map(|(i, stride)| i * stride).sum();
            gathered.extend_from_slice(&bytes[at * size..(at + 1) * size]);
            for axis in (0..place.len()).rev() {
                place[axis] += 1;
                if place[axis] < part.shape[axis] {
                    break;
                }
                place[axis] = 0;
            }
        }
        Ok(gathered)
    }

    /// Returns a tensor's elements as f32, converted from f16, bf16, f64, integers or booleans.
    ///
    /// # Errors
    /// [`Error::Weights`] if the tensor is missing, has another type, or holds a value that no
    /// network can have: one that is not finite, or a negative variance or second moment.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.tensor(name)?;
        let bytes = self.data(info)?;
        fn each<const N: usize>(bytes: &[u8], convert: fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
        }
        let numbers = match info.dtype {
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
                let problem = format!(
                    "tensor `{name}` has type {other:?}, expected a floating-point or integer type"
                );
                return Err(Error::weights(self.path(), problem));
            }
        };
        let squares = name.ends_with("running_var") || name.contains("exp_avg_sq");
        let wrong = |x: &f32| !x.is_finite() || (squares && *x < 0.0);
        match numbers.iter().position(wrong) {
            None => Ok(numbers),
            Some(at) => {
                let expected = if squares { "a finite number of at least 0" } else { "finite" };
                let problem =
                    format!("tensor `{name}` holds {} at {at}, expected {expected}", numbers[at]);
                Err(Error::weights(self.path(), problem))
            }
        }
    }

    /// Returns the bytes of a tensor, which must have this type.
    ///
    /// # Errors
    /// [`Error::Weights`] if the tensor is missing or has another type.
    pub fn exactly(&self, name: &str, dtype: Dtype) -> Result<Vec<u8>> {
        let info = self.tensor(name)?;
        if info.dtype != dtype {
            let problem = format!("tensor `{name}` is {:?}, expected {dtype:?}", info.dtype);
            return Err(Error::weights(self.path(), problem));
        }
        self.data(info)
    }

    /// Returns a SHA-256 digest of all tensors that does not depend on the file format: of name,
    /// type, shape and elements of each tensor, in alphabetical order of the names.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn digest(&self) -> Result<String> {
        let mut all: Vec<&TensorInfo> = self.tensors.iter().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hash = Sha256::new();
        for info in all {
            hash.update(format!("{}\0{:?}{:?}\0", info.name, info.dtype, info.shape));
            hash.update(self.data(info)?);
        }
        Ok(hex(&hash.finalize()))
    }

    /// Returns the SHA-256 of the file itself, as `sha256sum` prints it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        self.content.each_piece(0..self.content.len(), |bytes| hash.update(bytes))?;
        Ok(hex(&hash.finalize()))
    }

    /// Returns whether the file holds checksums; opening it has verified them.
    pub fn has_checksums(&self) -> bool {
        self.checked
    }

    /// Verifies the records of a torch file; returns false if it has no checksums.
    fn check_records(&self, records: &[(Range<usize>, u32)]) -> Result<bool> {
        // PyTorch can write zeros instead of checksums.
        let mut stored = records.iter().filter(|(_, expected)| *expected != 0).peekable();
        let any = stored.peek().is_some();
        for (place, expected) in stored {
            if self.content.crc32(place.clone())? != *expected {
                let (start, end) = (place.start, place.end);
                return Err(self.damaged(format!("bytes {start} to {end} do")));
            }
        }
        Ok(any)
    }

    /// Verifies the checksums that the writer left in the metadata.
    fn check_tensors(&self, digits: &str) -> Result<bool> {
        let parsed = checksum::parse(digits).filter(|(_, each)| each.len() == self.tensors.len());
        let first = self.tensors.iter().map(TensorInfo::start).min();
        let start = self.content.start(first.unwrap_or(self.content.len()))?;
        let place = checksum::place(&start, digits.len());
        let Some(((of_header, of_tensors), place)) = parsed.zip(place) else {
            let problem = format!(
                "its checksums (the metadata `{}`) are not those of its tensors: another program \
                 changed it; remove that metadata to use it as it is",
                checksum::KEY
            );
            return Err(Error::weights(self.path(), problem));
        };
        if checksum::of_header(&start, place) != of_header {
            return Err(self.damaged("its names, shapes and metadata do".into()));
        }
        for (info, expected) in self.tensors.iter().zip(of_tensors) {
            let start = info.start();
            if self.content.crc32(start..start + info.bytes())? != expected {
                return Err(self.damaged(format!("tensor `{}` does", info.name)));
            }
        }
        Ok(true)
    }

    fn damaged(&self, what: String) -> Error {
        let problem = "not match the stored checksum: the file is damaged; copy or download it \
                       again";
        Error::weights(self.path(), format!("{what} {problem}"))
    }
}

/// Returns the metadata strings of a safetensors file, without verifying its checksums.
///
/// # Errors
/// [`Error::Io`]; [`Error::Weights`] if this is not a complete safetensors file.
pub(super) fn metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let header = safetensors_header(&Content::open(path)?)?;
    header.map(|(_, strings)| strings).map_err(|problem| Error::weights(path, problem))
}

fn index(tensors: &[TensorInfo]) -> HashMap<String, usize> {
    tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect()
}

fn of_torch(tensor: pth::PthTensor) -> TensorInfo {
    let pth::PthTensor { name, dtype, shape, strides, mut place } = tensor;
    let empty = shape.contains(&0);
    let in_order = empty || {
        let expected = (1..=shape.len()).map(|axis| shape[axis..].iter().product::<usize>());
        // The stride of an axis of size 1 is irrelevant.
        let axes = shape.iter().zip(&strides).zip(expected);
        axes.into_iter().all(|((&side, &stride), expected)| side == 1 || stride == expected)
    };
    if in_order {
        let size = dtype.bitsize() / 8;
        place.end = place.start + shape.iter().product::<usize>() * size;
    }
    let strides = (!in_order).then_some(strides);
    TensorInfo::new(name, dtype, Part { shape, place, strides })
}

type Header = (Vec<TensorInfo>, BTreeMap<String, String>);

/// Reads the header of a safetensors file. The inner error describes what is wrong with it.
fn safetensors_header(file: &Content) -> Result<Result<Header, String>> {
    let start = file.start(8)?;
    let Ok(length) = <[u8; 8]>::try_from(start) else {
        return Ok(Err("it is shorter than a header".into()));
    };
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length + 8 > file.len() as u64 {
        return Ok(Err(format!("its header would have {length} bytes")));
    }
    let data = 8 + length as usize;
    let header = file.read(8..data)?;
    let header: Metadata = match serde_json::from_slice(&header) {
        Ok(header) => header,
        Err(e) => return Ok(Err(e.to_string())),
    };
    Ok(tensors_of(&header, data, file.len()).map(|tensors| {
        let strings = header.metadata().clone().unwrap_or_default();
        (tensors, strings.into_iter().collect())
    }))
}

/// Returns the tensors that a header describes. Their data must fill the rest of the file.
fn tensors_of(header: &Metadata, data: usize, end: usize) -> Result<Vec<TensorInfo>, String> {
    let all = header.tensors();
    let mut tensors = Vec::with_capacity(all.len());
    let mut at = 0;
    for name in header.offset_keys() {
        let Some(info) = all.get(&name) else { continue };
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |n, &side| n.checked_mul(side));
        let bytes = bits.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
        let (from, to) = info.data_offsets;
        if from != at || to.checked_sub(from) != bytes || bytes.is_none() {
            return Err(format!("tensor `{name}` has other bytes than its shape"));
        }
        at = to;
        let place = data.saturating_add(from)..data.saturating_add(to);
        let (dtype, shape) = (info.dtype, info.shape.clone());
        tensors.push(TensorInfo::new(name, dtype, Part { shape, place, strides: None }));
    }
    if data.saturating_add(at) != end {
        return Err(format!("it has {end} bytes, not {}", data.saturating_add(at)));
    }
    Ok(tensors)
}
