//! Writes torch files in the zip format. The pickle holds only dictionaries, lists, scalars and
//! tensors, so that `torch.load(weights_only=True)` accepts it.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use safetensors::Dtype;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::node::{MAX_DEPTH, Node, too_deep};
use super::value::storage_name;
use crate::checkpoint::writer::Entry;
use crate::file::atomic::write_atomic;
use crate::file::zip::{StickyWriter, write_zip};
use crate::{Error, Result};

/// Alignment of records in bytes, as PyTorch writes them.
const ALIGNMENT: u16 = 64;

/// Writes `tree` atomically; its tensors are the `entries` with their names.
///
/// # Errors
/// [`Error::Io`]; [`Error::Weights`] if the tree is too deep to be read back, a tensor is missing
/// from `entries` or from the tree, or PyTorch lacks its type; the error of an entry whose bytes
/// cannot be read.
pub fn write(path: &Path, tree: &Node, entries: Vec<Entry>) -> Result<()> {
    if tree.is_deeper_than(MAX_DEPTH) {
        return Err(Error::weights(path, too_deep()));
    }
    let mut named = HashSet::new();
    tree.each_tensor(&mut |name| {
        named.insert(name);
    });
    if let Some(lost) = entries.iter().find(|entry| !named.contains(entry.name.as_str())) {
        let problem =
            format!("its tree has no place for tensor `{}`, which would be lost", lost.name);
        return Err(Error::weights(path, problem));
    }
    let mut pickle = Pickle { bytes: vec![0x80, 2], tensors: HashMap::new(), path };
    for (index, entry) in entries.iter().enumerate() {
        pickle.tensors.insert(&entry.name, (index, entry.dtype, &entry.shape));
    }
    pickle.node(tree)?;
    pickle.bytes.push(b'.');
    let pickle = pickle.bytes;
    let root = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT);
    let mut failed = None;
    let write = |zip: &mut ZipWriter<&mut StickyWriter>| {
        let begin = |zip: &mut ZipWriter<_>, name: &str, bytes: usize| {
            let large = u32::try_from(bytes).is_err();
            zip.start_file(format!("{root}/{name}"), options.large_file(large))
                .map_err(io::Error::from)
        };
        for (name, bytes) in
            [("data.pkl", pickle.as_slice()), ("byteorder", b"little"), ("version", b"3\n")]
        {
            begin(zip, name, bytes.len())?;
            zip.write_all(bytes)?;
        }
        for (index, entry) in entries.into_iter().enumerate() {
            let bytes = match (entry.bytes)() {
                Ok(bytes) => bytes,
                Err(error) => {
                    failed = Some(error);
                    return Err(io::Error::other("cannot read the tensors"));
                }
            };
            begin(zip, &format!("data/{index}"), bytes.len())?;
            zip.write_all(&bytes)?;
        }
        Ok(())
    };
    let written = write_atomic(path, |file| write_zip(file, write));
    failed.map_or(written, Err)
}

struct Pickle<'a> {
    bytes: Vec<u8>,
    /// Record index, type and shape of each tensor, by name.
    tensors: HashMap<&'a str, (usize, Dtype, &'a [usize])>,
    path: &'a Path,
}

impl Pickle<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        match node {
            Node::None | Node::Skipped(_) => self.bytes.push(b'N'),
            Node::Bool(value) => self.bytes.push(if *value { 0x88 } else { 0x89 }),
            Node::Int(value) => self.int(*value),
            Node::Float(value) => {
                self.bytes.push(b'G');
                self.bytes.extend(value.to_be_bytes());
            }
            Node::Text(text) => self.text(text),
            Node::List(items) => {
                self.bytes.extend(b"](");
                self.each(items)?;
                self.bytes.push(b'e');
            }
            Node::Tuple(items) => {
                self.bytes.push(b'(');
                self.each(items)?;
                self.bytes.push(b't');
            }
            Node::Dict(items) => {
                self.bytes.push(b'}');
                self.items(items)?;
            }
            Node::Ordered(items) => {
                self.bytes.extend(b"ccollections\nOrderedDict\n)R");
                self.items(items)?;
            }
            Node::Tensor(name) => self.tensor(name)?,
        }
        Ok(())
    }

    fn each(&mut self, items: &[Node]) -> Result<()> {
        items.iter().try_for_each(|item| self.node(item))
    }

    fn items(&mut self, items: &[(Node, Node)]) -> Result<()> {
        self.bytes.push(b'(');
        for (key, value) in items {
            self.node(key)?;
            self.node(value)?;
        }
        self.bytes.push(b'u');
        Ok(())
    }

    fn int(&mut self, value: i64) {
        match (u8::try_from(value), i32::try_from(value)) {
            (Ok(byte), _) => self.bytes.extend([b'K', byte]),
            (_, Ok(int)) => {
                self.bytes.push(b'J');
                self.bytes.extend(int.to_le_bytes());
            }
            _ => {
                self.bytes.extend([0x8a, 8]);
                self.bytes.extend(value.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes.push(b'X');
        // Texts are names and notes, far below the 4 GiB that the length field allows.
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn sizes(&mut self, sizes: impl Iterator<Item = usize>) {
        self.bytes.push(b'(');
        sizes.for_each(|size| self.int(size as i64));
        self.bytes.push(b't');
    }

    fn tensor(&mut self, name: &str) -> Result<()> {
        let problem = |problem: String| Error::weights(self.path, problem);
        let &(index, dtype, shape) =
            self.tensors.get(name).ok_or_else(|| problem(format!("tensor `{name}` is missing")))?;
        let class = storage_name(dtype).ok_or_else(|| {
            problem(format!("tensor `{name}`: PyTorch has no type for {dtype:?}"))
        })?;
        self.bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.bytes.extend(format!("ctorch\n{class}Storage\n").as_bytes());
        self.text(&index.to_string());
        self.text("cpu");
        self.int(shape.iter().product::<usize>() as i64);
        self.bytes.extend(b"tQK\0");
        self.sizes(shape.iter().copied());
        let strides =
            (1..=shape.len()).map(|axis| shape[axis..].iter().map(|&n| n.max(1)).product());
        self.sizes(strides);
        // `requires_grad` is false, and there are no backward hooks.
        self.bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        Ok(())
    }
}
