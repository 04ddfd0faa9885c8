//! Tensors on a device: where their memory comes from, where it goes back to, and who holds it.

use super::arena::{ALIGNMENT, MemoryReport};
use super::handle::{Device, Inner};
use super::memory::{Allocation, Block, Owner};
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Owner for Inner {
    fn free(&self, &Allocation { address, bytes, holder, pool }: &Allocation) {
        self.backend.take_back(address, bytes);
        self.pools.borrow_mut().give_back(pool, address, bytes, holder);
    }
}

impl Device {
    /// Memory of unspecified content.
    pub fn alloc(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let bytes = shape.iter().product::<usize>() * dtype.bytes();
        let holder = self.0.holder.get();
        let taken = self.0.pools.borrow_mut().take(bytes, holder);
        let (address, pool) = match taken {
            Some(taken) => taken,
            None => {
                self.add_chunk(bytes)?;
                let taken = self.0.pools.borrow_mut().take(bytes, holder);
                taken.ok_or_else(|| Error::device("the arena lost a chunk"))?
            }
        };
        self.0.backend.lend(address, bytes)?;
        let allocation = Allocation { address, bytes, holder, pool };
        Ok(Tensor::new(Block::allocated(self.0.clone(), allocation), shape, dtype))
    }

    /// Reserves room for a request of `bytes`: as much at once as the backend likes, or else no more
    /// than the request needs.
    fn add_chunk(&self, bytes: usize) -> Result<()> {
        let least = self.0.pools.borrow().missing(bytes);
        let wanted = self.0.backend.chunk().max(least);
        let (chunk, address) = match self.0.backend.reserve(wanted) {
            Ok(address) => (wanted, address),
            Err(_) => {
                let address = self.0.backend.reserve(least);
                (least, address.map_err(|e| self.out_of_memory(bytes, e))?)
            }
        };
        self.0.pools.borrow_mut().add_chunk(address, chunk);
        Ok(())
    }

    /// A tensor over memory of the device that is somebody else's: an image to segment, a batch to
    /// learn from. `address` is a multiple of [`ALIGNMENT`], which what CUDA allocates is.
    ///
    /// # Safety
    /// As many bytes lie there, which outlive the tensor, its clones and what reads them, and which
    /// others touch in the order of the device's stream alone.
    pub unsafe fn tensor_at(&self, address: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
        if address == 0 || !address.is_multiple_of(ALIGNMENT as u64) {
            let problem = format!("{address:#x} is no multiple of {ALIGNMENT}");
            return Err(Error::shape("tensor_at", problem));
        }
        Ok(Tensor::new(Block::borrowed(self.0.clone(), address), shape, dtype))
    }

    fn out_of_memory(&self, bytes: usize, cause: Error) -> Error {
        let report = self.memory();
        let held: Vec<String> = (report.peak_holders.iter().take(4))
            .map(|(name, n)| format!("{name} {} MiB", n >> 20))
            .collect();
        Error::OutOfMemory(format!(
            "{cause}; there is no room for {} MiB of {}. {} MiB are in use, at most {} were ({})",
            (bytes >> 20).max(1),
            self.0.holder.get(),
            report.used >> 20,
            report.peak >> 20,
            held.join(", ")
        ))
    }

    /// A tensor of `real` of unspecified content.
    pub fn empty(&self, shape: &[usize]) -> Result<Tensor> {
        self.alloc(shape, self.real())
    }

    pub fn empty_like(&self, like: &Tensor) -> Result<Tensor> {
        self.alloc(like.shape(), like.dtype())
    }

    pub fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let mut tensor = self.alloc(shape, dtype)?;
        self.zero(&mut tensor)?;
        Ok(tensor)
    }

    pub fn memory(&self) -> MemoryReport {
        self.0.pools.borrow().report()
    }

    pub fn reset_peak_memory(&self) {
        self.0.pools.borrow_mut().reset_peak();
    }
}
