//! A tensor: a shape and an element type over device memory.

use std::fmt;
use std::rc::Rc;

use crate::device::{Block, TensorView};
use crate::{Error, Result};

pub use crate::dtype::{DType, Element};

/// Identifies the gradient of a tensor on a tape. It carries the gradient's shape and type, so that
/// the tape can allocate it without keeping the tensor's own memory alive.
#[derive(Clone, Debug)]
pub struct GradId {
    pub(crate) id: u32,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
}

/// Row-major and contiguous. Feature maps are B,H,W,C and tokens B,N,C: the same buffer. A clone
/// shares the memory, which goes back to the arena with the last of them.
#[derive(Clone)]
pub struct Tensor {
    block: Rc<Block>,
    /// Bytes into the block.
    offset: usize,
    shape: Vec<usize>,
    dtype: DType,
    /// None for a tensor that needs no gradient.
    pub(crate) slot: Option<GradId>,
}

impl Tensor {
    /// A tensor at the beginning of `block`.
    pub(crate) fn new(block: Block, shape: &[usize], dtype: DType) -> Self {
        Tensor { block: Rc::new(block), offset: 0, shape: shape.into(), dtype, slot: None }
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

    /// What a kernel is told about the tensor.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { address: self.address(), dtype: self.dtype, shape: &self.shape }
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
        Ok(Tensor { offset, shape: shape.into(), ..self.detach() })
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
