//! A tensor as kernels see it: an address, a type and a shape, with no claim on the memory.

use std::fmt;

use crate::dtype::DType;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Device address of the first element.
    pub address: u64,
    pub dtype: DType,
    pub shape: &'a [usize],
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.dtype, self.shape)
    }
}
