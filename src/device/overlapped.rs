//! Asynchronous transfers, which block neither the host nor the work in progress.

use super::backend::EventId;
use super::handle::Device;
use super::profile::Request;
use crate::dtype::{DType, Element};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Staging buffers on the device: the next step's upload overlaps the current step.
pub struct StagingBuffers {
    device: Device,
    parts: Vec<Tensor>,
    /// Event recorded after everything that reads the current contents; None on a device that
    /// always runs synchronously.
    read: Option<EventId>,
}

impl StagingBuffers {
    /// Allocates one buffer for each shape and type.
    pub fn new(device: &Device, parts: &[(&[usize], DType)]) -> Result<StagingBuffers> {
        let parts: Result<Vec<Tensor>> =
            parts.iter().map(|(shape, dtype)| device.alloc(shape, *dtype)).collect();
        let mut staging = StagingBuffers { device: device.clone(), parts: parts?, read: None };
        staging.mark()?;
        Ok(staging)
    }

    /// Uploads `data` to the first buffers, one slice each, and calls `read`, which must submit all
    /// work that reads them: afterwards they may be overwritten. `data` may be dropped as soon as
    /// this returns.
    ///
    /// # Errors
    /// Fails if a slice and its buffer differ in length.
    pub fn upload<R>(
        &mut self,
        data: &[&[u8]],
        read: impl FnOnce(&[Tensor]) -> Result<R>,
    ) -> Result<R> {
        let places: Vec<(u64, &[u8])> = (self.parts.iter().zip(data))
            .map(|(part, data)| match part.bytes() == data.len() {
                true => Ok((part.address(), *data)),
                false => Err(Error::shape("upload", format!("{} bytes for {part:?}", data.len()))),
            })
            .collect::<Result<_>>()?;
        let backend = &self.device.0.backend;
        let request = || Request::memory("send", data.iter().map(|data| data.len()).sum());
        self.device.timed(request, || match (backend.transfers(), self.read) {
            (Some(transfers), Some(read)) => transfers.send(read, &places),
            _ => places.iter().try_for_each(|(place, data)| backend.copy_in(*place, data)),
        })?;
        let result = read(&self.parts);
        self.mark()?;
        result
    }

    fn mark(&mut self) -> Result<()> {
        if let Some(transfers) = self.device.0.backend.transfers() {
            self.read = Some(transfers.mark(self.read)?);
        }
        Ok(())
    }
}

/// A tensor's contents on their way to the host.
pub struct Readback {
    device: Device,
    dtype: DType,
    bytes: usize,
    content: Content,
}

enum Content {
    Ready(Vec<u8>),
    /// Index of the readback slot.
    Pending(usize),
}

impl Device {
    /// Starts to copy a tensor to the host without waiting. The copy holds the contents after all
    /// work submitted so far.
    pub fn fetch(&self, tensor: &Tensor) -> Result<Readback> {
        let mut readback = self.readback(tensor)?;
        readback.start(tensor)?;
        Ok(readback)
    }

    /// Prepares to copy a tensor or a part of it to the host: everything that takes memory.
    pub(crate) fn readback(&self, tensor: &Tensor) -> Result<Readback> {
        self.require_own("fetch", tensor.view())?;
        let bytes = tensor.bytes();
        let content = match self.0.backend.transfers() {
            Some(transfers) => Content::Pending(transfers.place(bytes)?),
            None => Content::Ready(vec![0; bytes]),
        };
        Ok(Readback { device: self.clone(), dtype: tensor.dtype(), bytes, content })
    }
}

impl Readback {
    /// Starts to copy a tensor, no larger than what this was prepared for, without waiting.
    pub(crate) fn start(&mut self, tensor: &Tensor) -> Result<()> {
        self.device.require_own("fetch", tensor.view())?;
        if tensor.bytes() > self.bytes || tensor.dtype() != self.dtype {
            let problem = format!("{tensor:?} is larger or of another type than prepared for");
            return Err(Error::shape("fetch", problem));
        }
        let (from, backend) = (tensor.address(), &self.device.0.backend);
        self.bytes = tensor.bytes();
        match (&mut self.content, backend.transfers()) {
            (Content::Ready(data), _) => {
                data.truncate(self.bytes);
                backend.copy_out(from, data)
            }
            (Content::Pending(place), Some(transfers)) => transfers.fetch(from, self.bytes, *place),
            (Content::Pending(_), None) => Err(Error::device("no room was made for a copy")),
        }
    }

    /// Returns whether the contents have arrived.
    pub fn is_there(&self) -> Result<bool> {
        match (&self.content, self.device.0.backend.transfers()) {
            (Content::Pending(place), Some(transfers)) => transfers.is_there(*place),
            _ => Ok(true),
        }
    }

    /// Waits for the contents and returns them.
    ///
    /// # Errors
    /// Fails if the tensor has another element type.
    pub fn wait<E: Element>(&self) -> Result<Vec<E>> {
        if self.dtype != E::DTYPE {
            return Err(Error::shape("read", format!("{:?} as {:?}", self.dtype, E::DTYPE)));
        }
        let mut data = vec![E::zeroed(); self.bytes / self.dtype.bytes()];
        let bytes = bytemuck::cast_slice_mut(&mut data);
        match (&self.content, self.device.0.backend.transfers()) {
            (Content::Ready(content), _) => bytes.copy_from_slice(content),
            (Content::Pending(place), Some(transfers)) => transfers.wait(*place, bytes)?,
            (Content::Pending(_), None) => return Err(Error::device("nothing was fetched")),
        }
        Ok(data)
    }

    /// Waits for the contents of a tensor of the compute type and returns them in single precision.
    pub fn wait_f32(&self) -> Result<Vec<f32>> {
        match self.dtype {
            DType::F64 => Ok(self.wait::<f64>()?.into_iter().map(|x| x as f32).collect()),
            _ => self.wait(),
        }
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        if let (Content::Pending(place), Some(transfers)) =
            (&self.content, self.device.0.backend.transfers())
        {
            transfers.forget(*place);
        }
    }
}
