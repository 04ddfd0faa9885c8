//! Tensors: a shape and an element type over a block of device memory.

use std::fmt;
use std::rc::Rc;

use crate::device::{Block, DeviceId, TensorView};
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

/// A row-major, contiguous array in device memory. Feature maps have shape B,H,W,C and token
/// sequences B,N,C, which is the same buffer. Clones share the memory; it returns to the arena when
/// the last clone is dropped.
#[derive(Clone)]
pub struct Tensor {
    block: Rc<Block>,
    /// Offset into the block in bytes.
    offset: usize,
    shape: Vec<usize>,
    dtype: DType,
    /// The gradient's id; `None` if the tensor needs no gradient.
    pub(crate) slot: Option<GradId>,
}

impl Tensor {
    /// Creates a tensor at the start of `block`, whose shape has a size
    /// ([`elements_of`], [`DType::bytes`]).
    pub(crate) fn new(block: Block, shape: &[usize], dtype: DType) -> Self {
        Tensor { block: Rc::new(block), offset: 0, shape: shape.into(), dtype, slot: None }
    }

    /// Returns the shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size of the elements in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }

    /// Returns the device address of the first element.
    pub fn address(&self) -> u64 {
        self.block.address() + self.offset as u64
    }

    /// Returns the address, element type and shape that a kernel launch takes.
    pub fn view(&self) -> TensorView<'_> {
        let (device, address) = (self.device_id(), self.address());
        TensorView { device, address, dtype: self.dtype, shape: &self.shape }
    }

    /// Returns the device whose memory the tensor is in.
    pub(crate) fn device_id(&self) -> DeviceId {
        self.block.device()
    }

    /// Returns whether no other tensor shares the memory, so that it may be written in place.
    pub(crate) fn is_unique(&self) -> bool {
        Rc::strong_count(&self.block) == 1
    }

    /// Returns the size of dimension `i`; a negative index counts from the end. A dimension that
    /// the tensor does not have has size 1, as if the shape were padded.
    pub fn dim(&self, i: isize) -> usize {
        let index = if i < 0 { self.shape.len().checked_add_signed(i) } else { i.try_into().ok() };
        index.and_then(|index| self.shape.get(index)).copied().unwrap_or(1)
    }

    /// Returns the size of the last dimension, the channels.
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Returns the number of elements divided by the channels: the rows of the matrix that a matmul
    /// sees.
    pub fn rows(&self) -> usize {
        self.len() / self.channels().max(1)
    }

    /// Returns the four dimensions B,H,W,C of a feature map, or a shape error that names `op`.
    pub fn bhwc(&self, op: &'static str) -> Result<[usize; 4]> {
        self.shape.as_slice().try_into().map_err(|_| {
            Error::shape(op, format!("expected a feature map B,H,W,C, got {:?}", self.shape))
        })
    }

    /// Returns a view of the same memory and gradient with another shape.
    ///
    /// # Errors
    /// Returns a shape error if the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if elements_of(shape) != Some(self.len()) {
            let problem = format!("{:?} does not have as many elements as {shape:?}", self.shape);
            return Err(Error::shape("reshape", problem));
        }
        Ok(Tensor { shape: shape.into(), ..self.clone() })
    }

    /// Returns a view of part of the memory, starting at element `start`, without a gradient.
    ///
    /// # Errors
    /// Returns a shape error if the view would exceed the tensor.
    pub fn slice(&self, start: usize, shape: &[usize]) -> Result<Tensor> {
        let end = elements_of(shape).and_then(|elements| start.checked_add(elements));
        if end.is_none_or(|end| end > self.len()) {
            let problem = format!("{shape:?} from element {start} on of {}", self.len());
            return Err(Error::shape("slice", problem));
        }
        let offset = self.offset + start * self.dtype.bytes();
        Ok(Tensor { offset, shape: shape.into(), ..self.detach() })
    }

    /// Returns the same memory without a gradient, so that the tape does not track it.
    pub fn detach(&self) -> Tensor {
        Tensor { slot: None, ..self.clone() }
    }
}

/// Returns the number of elements of a shape, or None if it has more than memory could hold. That
/// counts for a shape without elements too: the product of its other dimensions is a size as well.
pub(crate) fn elements_of(shape: &[usize]) -> Option<usize> {
    let most = isize::MAX as usize;
    let product = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side.max(1)))?;
    (product <= most).then(|| if shape.contains(&0) { 0 } else { product })
}

/// Returns the size in bytes of a tensor of this shape and type, or None if it has no size.
pub(crate) fn bytes_of(shape: &[usize], dtype: DType) -> Option<usize> {
    let bytes = elements_of(shape)?.checked_mul(dtype.bytes())?;
    (bytes <= isize::MAX as usize).then_some(bytes)
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.dtype, self.shape)
    }
}
