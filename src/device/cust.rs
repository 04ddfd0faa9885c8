//! For programs that hold their GPU through the crate `cust`: its contexts, streams and buffers.

use cust::context::Context;
use cust::memory::{DeviceBuffer, DeviceCopy};
use cust::stream::Stream;

use super::handle::Device;
use super::precision::Precision;
use crate::dtype::Element;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Device {
    /// As [`cuda_in`](Self::cuda_in): the GPU of `context`, all work on `stream`.
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
        // SAFETY: live handles, for as long as the caller says.
        unsafe { Self::cuda_in(context, stream, precision, deterministic) }
    }

    /// As [`tensor_at`](Self::tensor_at): a tensor over a buffer's elements, which are as many as
    /// `shape` has.
    ///
    /// # Safety
    /// The buffer is of this device's context, outlives the tensor, its clones and what reads them,
    /// and is touched elsewhere in the order of the device's stream alone.
    pub unsafe fn cust_tensor<E: Element + DeviceCopy>(
        &self,
        buffer: &DeviceBuffer<E>,
        shape: &[usize],
    ) -> Result<Tensor> {
        if shape.iter().product::<usize>() != buffer.len() {
            let problem = format!("a buffer of {} elements for {shape:?}", buffer.len());
            return Err(Error::shape("cust_tensor", problem));
        }
        // SAFETY: the caller's; as many elements lie there.
        unsafe { self.tensor_at(buffer.as_device_ptr().as_raw(), shape, E::DTYPE) }
    }
}
