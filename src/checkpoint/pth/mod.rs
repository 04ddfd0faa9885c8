//! PyTorch's checkpoints (`.pth`), in the zip format and in the older one, read and written without
//! PyTorch.
//!
//! Nothing in a file is run: its pickle is read as data (pickle.rs), the functions that make tensors
//! are known by name, and whatever else it would call is skipped where it is metadata, listed in
//! [`Contents::skipped`], and refused by name where tensors are its arguments or it stands among
//! them. The pickle alone is read when a file is opened; tensors are ranges of the memory map.
//!
//! A reader of our own, because the crates that there are either lack the older format (candle-core),
//! or read through buffers, forget the order of a state dict and let unknown functions pass
//! without a word (pytorch-reader 0.22).

mod legacy;
mod node;
mod pickle;
mod value;
mod walk;
mod write;
mod zip_format;

use std::ops::Range;

use safetensors::Dtype;

pub use node::Node;
pub use write::write;

use value::Outcome;

/// A whole torch file but for its numbers.
#[derive(Debug)]
pub struct Contents {
    /// In the file's order.
    pub tensors: Vec<PthTensor>,
    /// All that is not a tensor's numbers.
    pub tree: Node,
    /// Metadata of classes that are not understood: where it stands, and the class.
    pub skipped: Vec<(String, String)>,
    /// What a zip file says of each of its records.
    pub checksums: Vec<(Range<usize>, u32)>,
}

/// Where a tensor's numbers stand.
#[derive(Debug)]
pub struct PthTensor {
    /// The key in the state dict; for what stands beside it, the keys on the way there, by dots.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Elements from one to the next on each axis.
    pub strides: Vec<usize>,
    /// Bytes of the file from the first element to the end of the storage.
    pub place: Range<usize>,
}

/// Whether a file that begins like this is a torch file, or pretends to be.
pub fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || legacy::is_pickle(bytes) || is_tar(bytes)
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Reads all but the numbers.
pub fn read(bytes: &[u8]) -> Outcome<Contents> {
    if bytes.starts_with(b"PK\x03\x04") {
        return zip_format::read(bytes);
    }
    if is_tar(bytes) {
        return Err("is of the format before PyTorch 0.2 (tar): load and save it with a newer \
                    PyTorch"
            .into());
    }
    legacy::read(bytes)
}
