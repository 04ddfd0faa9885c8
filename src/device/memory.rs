//! A range of device memory that returns to its device when dropped.

use std::rc::Rc;

use super::pools::Pool;
use super::view::DeviceId;

/// The owner of device memory, which takes freed ranges back. Every block keeps its owner alive.
pub(super) trait Owner {
    fn free(&self, allocation: &Allocation);
}

/// The data that the owner needs to free a range.
pub(super) struct Allocation {
    pub address: u64,
    pub bytes: usize,
    /// Allocation tag in memory reports.
    pub tag: &'static str,
    pub pool: Pool,
}

/// A range of device memory. Dropping it returns the range to its owner, unless it was borrowed.
pub struct Block {
    owner: Rc<dyn Owner>,
    address: u64,
    /// None for memory that belongs to the embedding program.
    allocation: Option<Allocation>,
}

impl Block {
    pub(super) fn allocated(owner: Rc<dyn Owner>, allocation: Allocation) -> Block {
        Block { owner, address: allocation.address, allocation: Some(allocation) }
    }

    /// Wraps memory of the embedding program; dropping the block does not free it.
    pub(super) fn borrowed(owner: Rc<dyn Owner>, address: u64) -> Block {
        Block { owner, address, allocation: None }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Returns the device whose memory it is.
    pub(crate) fn device(&self) -> DeviceId {
        DeviceId::of(Rc::as_ptr(&self.owner))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(allocation) = &self.allocation {
            self.owner.free(allocation);
        }
    }
}
