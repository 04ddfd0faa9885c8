//! What reading a torch file gives.

use std::ops::Range;

use safetensors::Dtype;

use super::node::Node;

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
