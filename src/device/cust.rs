//! Interoperability with the crate `cust`: its contexts, streams and buffers.

use cust::context::Context;
use cust::memory::{DeviceBuffer, DeviceCopy};
use cust::stream::Stream;

use super::handle::Device;
use super::precision::Precision;
use crate::dtype::Element;
use crate::tensor::{Tensor, elements_of};
use crate::{Error, Result};

impl Device {
    /// Creates a device on the GPU of `context`, with all work on `stream`; see
    /// [`cuda_in`](Self::cuda_in).
    ///
    /// # Safety
    /// Both outlive the device and its tensors.
    pub unsafe fn cust_in(
        context: &Context,
        stream: &Stream,
        precision: Precision,
        deterministic: bool,
    ) -> Result<Device> {
        let (context, stream) = (context.as_raw().cast(), stream.as_inner().cast());
        // SAFETY: `cust` hands out live handles, and the caller guarantees that they outlive the
        // device.
        unsafe { Self::cuda_in(context, stream, precision, deterministic) }
    }

    /// Creates a tensor of this shape over the elements of a buffer; see
    /// [`tensor_at`](Self::tensor_at).
    ///
    /// # Errors
    /// Fails if `shape` has another number of elements than the buffer.
    ///
    /// # Safety
    /// The buffer belongs to this device's context, outlives the tensor, its clones and the work
    /// that reads them, and is accessed elsewhere only in the order of the device's stream.
    pub unsafe fn cust_tensor<E: Element + DeviceCopy>(
        &self,
        buffer: &DeviceBuffer<E>,
        shape: &[usize],
    ) -> Result<Tensor> {
        if elements_of(shape) != Some(buffer.len()) {
            let problem = format!("a buffer of {} elements for {shape:?}", buffer.len());
            return Err(Error::shape("cust_tensor", problem));
        }
        // SAFETY: the caller guarantees lifetime and ordering, and the number of elements was
        // checked above.
        unsafe { self.tensor_at(buffer.as_device_ptr().as_raw(), shape, E::DTYPE) }
    }
}
