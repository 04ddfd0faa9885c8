//! Tensor allocation: where the memory comes from, where it returns to, and which allocation tag it
//! counts for.

use super::arena::{ALIGNMENT, MemoryReport};
use super::handle::{Device, Inner};
use super::memory::{Allocation, Block, Owner};
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Owner for Inner {
    fn free(&self, &Allocation { address, bytes, tag, pool }: &Allocation) {
        self.backend.on_free(address, bytes);
        self.pools.borrow_mut().give_back(pool, address, bytes, tag);
    }
}

impl Device {
    /// Allocates a tensor with unspecified contents.
    ///
    /// # Errors
    /// Returns [`Error::OutOfMemory`] if the device has too little memory left.
    pub fn alloc(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let bytes = shape.iter().product::<usize>() * dtype.bytes();
        let tag = self.0.tag.get();
        let taken = self.0.pools.borrow_mut().take(bytes, tag);
        let (address, pool) = match taken {
            Some(taken) => taken,
            None => {
                self.add_segment(bytes)?;
                let taken = self.0.pools.borrow_mut().take(bytes, tag);
                taken.ok_or_else(|| Error::device("the arena lost a segment"))?
            }
        };
        self.0.backend.on_alloc(address, bytes)?;
        let allocation = Allocation { address, bytes, tag, pool };
        Ok(Tensor::new(Block::allocated(self.0.clone(), allocation), shape, dtype))
    }

    /// Reserves a segment for a request of `bytes`: the backend's preferred size or, if that fails,
    /// no more than the request needs.
    fn add_segment(&self, bytes: usize) -> Result<()> {
        let least = self.0.pools.borrow().segment_bytes(bytes);
        let wanted = self.0.backend.segment().max(least);
        let (segment, address) = match self.0.backend.reserve(wanted) {
            Ok(address) => (wanted, address),
            Err(_) => {
                let address = self.0.backend.reserve(least);
                (least, address.map_err(|e| self.out_of_memory(bytes, e))?)
            }
        };
        self.0.pools.borrow_mut().add_segment(address, segment);
        Ok(())
    }

    /// Creates a tensor over device memory owned by the embedding program, such as an image to
    /// segment or a batch to train on. `address` must be a multiple of [`ALIGNMENT`], as CUDA's
    /// allocations are.
    ///
    /// # Errors
    /// Fails if the address is null or misaligned.
    ///
    /// # Safety
    /// The memory at `address` holds the whole tensor, outlives the tensor, its clones and the work
    /// that reads them, and is accessed by others only in the order of the device's stream.
    pub unsafe fn tensor_at(&self, address: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
        if address == 0 || !address.is_multiple_of(ALIGNMENT as u64) {
            let problem = format!("{address:#x} is not a multiple of {ALIGNMENT}");
            return Err(Error::shape("tensor_at", problem));
        }
        Ok(Tensor::new(Block::borrowed(self.0.clone(), address), shape, dtype))
    }

    fn out_of_memory(&self, bytes: usize, cause: Error) -> Error {
        let report = self.memory();
        let held: Vec<String> = (report.peak_tags.iter().take(4))
            .map(|(name, n)| format!("{name} {} MiB", n >> 20))
            .collect();
        Error::OutOfMemory(format!(
            "cannot allocate {} MiB for {}: {cause}. {} MiB are in use, the peak was {} MiB ({})",
            (bytes >> 20).max(1),
            self.0.tag.get(),
            report.used >> 20,
            report.peak >> 20,
            held.join(", ")
        ))
    }

    /// Allocates a tensor of the compute type with unspecified contents.
    pub fn empty(&self, shape: &[usize]) -> Result<Tensor> {
        self.alloc(shape, self.real())
    }

    /// Allocates a tensor with the shape and type of `like` and unspecified contents.
    pub fn empty_like(&self, like: &Tensor) -> Result<Tensor> {
        self.alloc(like.shape(), like.dtype())
    }

    /// Allocates a tensor filled with zeros.
    pub fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let mut tensor = self.alloc(shape, dtype)?;
        self.zero(&mut tensor)?;
        Ok(tensor)
    }

    /// Reports the device's memory usage.
    pub fn memory(&self) -> MemoryReport {
        self.0.pools.borrow().report()
    }

    /// Resets the peak of memory reports to the current usage.
    pub fn reset_peak_memory(&self) {
        self.0.pools.borrow_mut().reset_peak();
    }
}
