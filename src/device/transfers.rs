//! Tensor contents: zeroing, uploads, readback and copies on the device.

use std::borrow::Cow;

use super::handle::Device;
use super::precision::Types;
use super::profile::Request;
use crate::dtype::{DType, Element};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Device {
    /// Fills a tensor with zeros.
    pub fn zero(&self, tensor: &mut Tensor) -> Result<()> {
        self.require_own("zero", tensor.view())?;
        let (address, bytes) = (tensor.address(), tensor.bytes());
        let request = || Request::memory("zero", bytes);
        self.timed(request, || self.0.backend.zero(address, bytes))
    }

    /// Allocates a tensor and uploads its contents.
    pub fn upload<E: Element>(&self, shape: &[usize], data: &[E]) -> Result<Tensor> {
        let mut tensor = self.alloc(shape, E::DTYPE)?;
        self.write(&mut tensor, data)?;
        Ok(tensor)
    }

    /// Allocates a tensor of the compute type and uploads single-precision data to it.
    pub fn upload_real(&self, shape: &[usize], data: &[f32]) -> Result<Tensor> {
        let mut tensor = self.empty(shape)?;
        self.write_real(&mut tensor, data)?;
        Ok(tensor)
    }

    /// Overwrites a tensor of the compute type with single-precision data.
    pub fn write_real(&self, tensor: &mut Tensor, data: &[f32]) -> Result<()> {
        self.write_bytes(tensor, self.real(), &self.as_real(data))
    }

    /// Returns single-precision data as bytes of the compute type.
    pub fn as_real<'a>(&self, data: &'a [f32]) -> Cow<'a, [u8]> {
        match self.0.types {
            Types::F32 | Types::Bf16 => bytemuck::cast_slice(data).into(),
            Types::F64 => data.iter().flat_map(|&x| f64::from(x).to_ne_bytes()).collect(),
        }
    }

    /// Overwrites a tensor's contents.
    ///
    /// # Errors
    /// Fails if the data differs from the tensor in type or length.
    pub fn write<E: Element>(&self, tensor: &mut Tensor, data: &[E]) -> Result<()> {
        self.write_bytes(tensor, E::DTYPE, bytemuck::cast_slice(data))
    }

    fn write_bytes(&self, tensor: &mut Tensor, dtype: DType, data: &[u8]) -> Result<()> {
        self.require_own("write", tensor.view())?;
        if tensor.dtype() != dtype || tensor.bytes() != data.len() {
            let elements = data.len() / dtype.bytes();
            let problem = format!("{tensor:?} cannot hold {elements} elements of {dtype:?}");
            return Err(Error::shape("write", problem));
        }
        let request = || Request::memory("write", tensor.bytes());
        self.timed(request, || self.0.backend.copy_in(tensor.address(), data))
    }

    /// Waits for the device and copies a tensor to the host.
    ///
    /// # Errors
    /// Fails if the tensor has another element type or is on another device, and on a dry device.
    pub fn read<E: Element>(&self, tensor: &Tensor) -> Result<Vec<E>> {
        let mut data = Vec::new();
        data.try_reserve_exact(tensor.len()).map_err(|_| {
            Error::OutOfMemory(format!("no memory to read {} MiB", tensor.bytes() >> 20))
        })?;
        data.resize(tensor.len(), E::zeroed());
        self.read_into(tensor, &mut data)?;
        Ok(data)
    }

    /// Like [`read`](Self::read), into a buffer of the caller's.
    ///
    /// # Errors
    /// The same as for [`read`](Self::read); also if the buffer has another length.
    pub fn read_into<E: Element>(&self, tensor: &Tensor, data: &mut [E]) -> Result<()> {
        self.require_own("read", tensor.view())?;
        if tensor.dtype() != E::DTYPE {
            return Err(Error::shape("read", format!("{tensor:?} read as {:?}", E::DTYPE)));
        }
        if !self.0.backend.computes() {
            return Err(Error::device("a dry device holds no numbers that could be read"));
        }
        if data.len() != tensor.len() {
            return Err(Error::shape("read", format!("{tensor:?} into {} elements", data.len())));
        }
        let request = || Request::memory("read", tensor.bytes());
        let bytes = bytemuck::cast_slice_mut(data);
        self.timed(request, || self.0.backend.copy_out(tensor.address(), bytes))
    }

    /// Reads a tensor of the compute or the storage type as single precision.
    pub fn read_f32(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        match tensor.dtype() {
            DType::F64 => Ok(self.read::<f64>(tensor)?.into_iter().map(|x| x as f32).collect()),
            DType::Bf16 => Ok(self.read(tensor)?.into_iter().map(half::bf16::to_f32).collect()),
            _ => self.read(tensor),
        }
    }

    /// Copies between tensors of the same type and length.
    ///
    /// # Errors
    /// Fails if type or length differ.
    pub fn copy(&self, from: &Tensor, to: &mut Tensor) -> Result<()> {
        if from.dtype() != to.dtype() || from.len() != to.len() {
            return Err(Error::shape("copy", format!("{from:?} into {to:?}")));
        }
        [from, &*to].iter().try_for_each(|tensor| self.require_own("copy", tensor.view()))?;
        let request = || Request::memory("copy", 2 * from.bytes());
        let (source, destination) = (from.address(), to.address());
        self.timed(request, || self.0.backend.copy(source, destination, from.bytes()))
    }
}
