//! Work that is prepared for a graph capture of the embedding program.

use super::handle::Device;
use crate::Result;

/// Work that can be captured into the embedding program's own CUDA graph. Its memory is no other
/// work's as long as this lives, so the graph may be replayed whenever its inputs are there.
pub struct Prepared {
    device: Device,
}

impl Device {
    /// Prepares `work` for a capture that the embedding program begins on the device's stream:
    /// runs it twice and waits. Algorithms are then chosen, kernels are loaded and memory is
    /// reserved, so that [`Prepared::run`] of the same work allocates nothing and waits for nothing.
    ///
    /// Inside such a capture, all else that would allocate or wait (an upload, a read, a shape that
    /// is new) is an error, which leaves the capture intact. What `work` allocates must be freed
    /// when it returns; its inputs and results are tensors from outside.
    ///
    /// # Errors
    /// Fails if `work` does.
    pub fn prepare(&self, mut work: impl FnMut() -> Result<()>) -> Result<Prepared> {
        self.0.graph_caches.set(self.0.graph_caches.get() + 1);
        self.0.pools.borrow_mut().graphs += 1;
        let prepared = Prepared { device: self.clone() };
        // Choosing algorithms takes memory of its own; only afterwards is the order of allocations
        // the one of all later runs.
        prepared.run(&mut work)?;
        prepared.run(&mut work)?;
        self.synchronize()?;
        Ok(prepared)
    }
}

impl Prepared {
    /// Runs work with the memory that is reserved for it.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        self.device.graph_private(work)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.device.0.pools.borrow_mut().graphs -= 1;
        self.device.release_graph_memory();
    }
}
