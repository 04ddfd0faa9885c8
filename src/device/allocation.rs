//! Tensor allocation: where the memory comes from, where it returns to, and which allocation tag it
//! counts for.

use super::arena::{ALIGNMENT, MemoryReport};
use super::handle::{Device, Inner};
use super::memory::{Allocation, Block, Owner};
use super::pools::Pool;
use crate::dtype::DType;
use crate::tensor::{Tensor, bytes_of};
use crate::{Error, Result};

/// Most bytes of a tensor: sums with what is left free around it do not overflow.
const MOST: usize = isize::MAX as usize / 4;

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
    /// Returns [`Error::OutOfMemory`] if the device has too little memory left, or no memory could
    /// be as large.
    pub fn alloc(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let bytes = bytes_of(shape, dtype).filter(|&bytes| bytes <= MOST).ok_or_else(|| {
            Error::OutOfMemory(format!("no memory could hold a tensor {dtype:?}{shape:?}"))
        })?;
        let tag = self.0.tag.get();
        let taken = self.0.pools.borrow_mut().take(bytes, tag);
        let (address, pool) = match taken {
            Some(taken) => taken,
            None => self.take_more(bytes, tag)?,
        };
        if let Err(error) = self.0.backend.on_alloc(address, bytes) {
            self.0.pools.borrow_mut().give_back(pool, address, bytes, tag);
            return Err(match error {
                Error::OutOfMemory(problem) => self.out_of_memory(bytes, &problem),
                other => other,
            });
        }
        let allocation = Allocation { address, bytes, tag, pool };
        Ok(Tensor::new(Block::allocated(self.0.clone(), allocation), shape, dtype))
    }

    /// Allocates a block after reserving more memory. If there is too little for that, segments
    /// that no tensor occupies are released first: one large segment may take their place.
    fn take_more(&self, bytes: usize, tag: &'static str) -> Result<(u64, Pool)> {
        let take = || self.0.pools.borrow_mut().take(bytes, tag);
        match self.add_segment(bytes) {
            Err(Error::OutOfMemory(problem)) => {
                if !self.release_unused_segments()? {
                    return Err(self.out_of_memory(bytes, &problem));
                }
                if let Some(taken) = take() {
                    return Ok(taken);
                }
                self.add_segment(bytes).map_err(|e| match e {
                    Error::OutOfMemory(problem) => self.out_of_memory(bytes, &problem),
                    other => other,
                })?;
            }
            added => added?,
        }
        take().ok_or_else(|| Error::device("the arena lost a segment"))
    }

    /// Releases segments that no tensor occupies, and returns whether there were any.
    fn release_unused_segments(&self) -> Result<bool> {
        let Inner { backend, pools, .. } = &*self.0;
        if !backend.can_release() {
            return Ok(false);
        }
        let unused = pools.borrow_mut().take_unused_segments();
        unused.iter().try_for_each(|segment| backend.release(*segment))?;
        Ok(!unused.is_empty())
    }

    /// Reserves a segment for a request of `bytes`: all that a limit leaves, the backend's
    /// preferred size or, if there is too little memory for that, no more than the request needs.
    fn add_segment(&self, bytes: usize) -> Result<()> {
        let pools = self.0.pools.borrow();
        let (least, reserved) = (pools.segment_bytes(bytes), pools.reserved());
        let limit = pools.limit;
        let left = limit.map_or(usize::MAX, |limit| limit.saturating_sub(reserved));
        drop(pools);
        if least > left {
            let problem = format!("{} MiB are left of the device's memory limit", left >> 20);
            return Err(Error::OutOfMemory(problem));
        }
        let backend = &self.0.backend;
        // Within a limit all memory is reserved at once: in one segment, all free neighbors merge.
        let at_once = limit.filter(|_| !backend.separates_tensors()).map(|_| left);
        let growing = backend.segment(reserved).clamp(least, left);
        let mut lacking = String::new();
        for wanted in at_once.into_iter().chain([growing, least]) {
            match backend.reserve(wanted) {
                Err(Error::OutOfMemory(problem)) => lacking = problem,
                address => {
                    self.0.pools.borrow_mut().add_segment(address?, wanted);
                    return Ok(());
                }
            }
        }
        Err(Error::OutOfMemory(lacking))
    }

    /// Creates a tensor over device memory owned by the embedding program, such as an image to
    /// segment or a batch to train on. `address` must be a multiple of [`ALIGNMENT`], as CUDA's
    /// allocations are.
    ///
    /// # Errors
    /// Fails if the address is null or misaligned, or the shape overflows.
    ///
    /// # Safety
    /// The memory at `address` holds the whole tensor, outlives the tensor, its clones and the work
    /// that reads them, and is accessed by others only in the order of the device's stream.
    pub unsafe fn tensor_at(&self, address: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let wrong = |problem: String| Err(Error::shape("tensor_at", problem));
        if address == 0 || !address.is_multiple_of(ALIGNMENT as u64) {
            return wrong(format!("{address:#x} is not a multiple of {ALIGNMENT}"));
        }
        // SAFETY: the caller guarantees the same.
        unsafe { self.memory_at(address, shape, dtype) }
    }

    /// Like [`tensor_at`](Self::tensor_at), for memory that only copies and kernels without vector
    /// accesses use: it need not be aligned to more than its elements.
    ///
    /// # Errors
    /// Fails if the address is null or misaligned, or the shape overflows.
    ///
    /// # Safety
    /// The same as for [`tensor_at`](Self::tensor_at).
    pub(crate) unsafe fn memory_at(
        &self,
        address: u64,
        shape: &[usize],
        dtype: DType,
    ) -> Result<Tensor> {
        if address == 0 || !address.is_multiple_of(dtype.bytes() as u64) {
            let problem = format!("{address:#x} is no address of {dtype:?}");
            return Err(Error::shape("tensor_at", problem));
        }
        if bytes_of(shape, dtype).is_none() {
            let problem = format!("no memory could hold a tensor {dtype:?}{shape:?}");
            return Err(Error::shape("tensor_at", problem));
        }
        Ok(Tensor::new(Block::borrowed(self.0.clone(), address), shape, dtype))
    }

    /// Limits the memory that tensors may take from now on, in bytes; it is then reserved at once.
    /// None, as at first, removes the limit: memory is reserved as it is needed. Libraries,
    /// kernels and the driver take more than that.
    pub fn set_memory_limit(&self, limit: Option<usize>) {
        self.0.pools.borrow_mut().limit = limit;
    }

    /// Returns the bytes of memory that the device has: a GPU's own, or those of the machine within
    /// the limits of this process's control groups. None if that is unknown.
    pub fn total_memory(&self) -> Result<Option<usize>> {
        self.0.backend.total_memory()
    }

    /// Returns the size in bytes of the last cache before the device's memory; None if that is
    /// unknown.
    pub fn last_cache(&self) -> Option<usize> {
        self.0.backend.last_cache()
    }

    fn out_of_memory(&self, bytes: usize, cause: &str) -> Error {
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

    /// Returns the bytes that more tensors could take now, and the name of what limits them. None if
    /// that only shows when they are allocated.
    pub fn available_memory(&self) -> Option<(usize, &'static str)> {
        let limit = self.0.pools.borrow().limit.map(|limit| (limit, "the device's memory limit"));
        let room = self.0.backend.room().map(|room| (room, "the machine's memory"));
        let (most, whose) = limit.into_iter().chain(room).min()?;
        Some((most.saturating_sub(self.memory().used), whose))
    }

    /// Fails if the device has no room for tensors of `bytes` together, as far as that is known.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], before anything is allocated.
    pub fn require(&self, bytes: usize) -> Result<()> {
        let Some((left, whose)) = self.available_memory() else { return Ok(()) };
        if bytes <= left {
            return Ok(());
        }
        let problem = format!("{} MiB are left of {whose}", left >> 20);
        Err(self.out_of_memory(bytes, &problem))
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
