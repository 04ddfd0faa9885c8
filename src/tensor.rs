//! A tensor: a shape and an element type over device memory.

use std::fmt;
use std::rc::Rc;

use crate::device::Block;
use crate::tape::Slot;
use crate::{Error, Result};

pub use crate::dtype::{DType, Element};

/// Row-major and contiguous. Feature maps are B,H,W,C and tokens B,N,C: the same buffer. A clone
/// shares the memory, which goes back to the arena with the last of them.
#[derive(Clone)]
pub struct Tensor {
    block: Rc<Block>,
    /// Bytes into the block.
    offset: usize,
    shape: Vec<usize>,
    dtype: DType,
    /// Where the tape collects its gradient; none for what needs none.
    pub(crate) slot: Option<Slot>,
}

impl Tensor {
    pub(crate) fn new(block: Rc<Block>, offset: usize, shape: Vec<usize>, dtype: DType) -> Self {
        Tensor { block, offset, shape, dtype, slot: None }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

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

    /// Device address of the first element.
    pub fn address(&self) -> u64 {
        self.block.address() + self.offset as u64
    }

    /// Whether no other tensor shares the memory, so that it may be written in place.
    pub(crate) fn is_unique(&self) -> bool {
        Rc::strong_count(&self.block) == 1
    }

    /// Size of dimension `i`; negative counts from the end.
    pub fn dim(&self, i: isize) -> usize {
        let index = if i < 0 { self.shape.len() as isize + i } else { i };
        self.shape[index as usize]
    }

    /// The last dimension: channels.
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Elements over channels: rows of the matrix that a product sees.
    pub fn rows(&self) -> usize {
        self.len() / self.channels().max(1)
    }

    /// B,H,W,C of a feature map.
    pub fn bhwc(&self, op: &'static str) -> Result<[usize; 4]> {
        self.shape.as_slice().try_into().map_err(|_| {
            Error::shape(op, format!("expected a feature map B,H,W,C, got {:?}", self.shape))
        })
    }

    /// The same memory and gradient under another shape of as many elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if shape.iter().product::<usize>() != self.len() {
            let problem = format!("{:?} does not hold as many elements as {shape:?}", self.shape);
            return Err(Error::shape("reshape", problem));
        }
        Ok(Tensor { shape: shape.into(), ..self.clone() })
    }

    /// Part of the memory, starting at element `start`, without a gradient.
    pub fn slice(&self, start: usize, shape: &[usize]) -> Result<Tensor> {
        let end = start + shape.iter().product::<usize>();
        if end > self.len() {
            let problem = format!("elements {start}..{end} of a tensor of {}", self.len());
            return Err(Error::shape("slice", problem));
        }
        let offset = self.offset + start * self.dtype.bytes();
        Ok(Tensor::new(self.block.clone(), offset, shape.into(), self.dtype))
    }

    /// The same memory, cut off from the tape.
    pub fn detach(&self) -> Tensor {
        Tensor { slot: None, ..self.clone() }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.dtype, self.shape)
    }
}
