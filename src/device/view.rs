//! A tensor as kernels see it: address, type and shape, without ownership of the memory.

use std::fmt;

use crate::dtype::DType;

/// Identifies a device among those that exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceId(usize);

impl DeviceId {
    /// Returns the identity of the device at an address. Every tensor keeps its device alive, so no
    /// other device can take the address while a tensor carries the identity.
    pub(super) fn of<T: ?Sized>(device: *const T) -> DeviceId {
        DeviceId(device.cast::<()>().addr())
    }
}

/// A borrowed description of a tensor in device memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// The device whose memory it is.
    pub(crate) device: DeviceId,
    /// Device address of the first element.
    pub address: u64,
    /// Element type.
    pub dtype: DType,
    /// Length of each dimension.
    pub shape: &'a [usize],
}

impl TensorView<'_> {
    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.dtype, self.shape)
    }
}
