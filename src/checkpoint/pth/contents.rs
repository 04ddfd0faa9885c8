//! The result of reading a torch file.

use std::ops::Range;

use safetensors::Dtype;

use super::node::Node;

/// The content of a torch file, without the elements of its tensors.
#[derive(Debug)]
pub struct Contents {
    /// The tensors, in the order of the file.
    pub tensors: Vec<PthTensor>,
    /// The tree of dictionaries, lists and scalars around the tensors.
    pub tree: Node,
    /// Metadata of unknown classes: its location, and the class.
    pub skipped: Vec<(String, String)>,
    /// Byte range and CRC-32 of each record of a zip file.
    pub checksums: Vec<(Range<usize>, u32)>,
}

/// The description of a tensor and the location of its elements.
#[derive(Debug)]
pub struct PthTensor {
    /// The key in the state dict, or the dotted path for a tensor outside of it.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The size of each axis.
    pub shape: Vec<usize>,
    /// The stride of each axis, in elements.
    pub strides: Vec<usize>,
    /// Byte range in the file, from the first element to the end of the storage.
    pub place: Range<usize>,
}
