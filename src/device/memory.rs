//! A range of device memory, which finds its own way back to the device that handed it out.

use std::rc::Rc;

use super::pools::Pool;

/// Hands out device memory and takes it back. Every block keeps its owner alive.
pub(super) trait Owner {
    fn free(&self, allocation: &Allocation);
}

/// What the owner needs to know to take a range back.
pub(super) struct Allocation {
    pub address: u64,
    pub bytes: usize,
    /// Who is charged for it in memory reports.
    pub holder: &'static str,
    pub pool: Pool,
}

/// A range of device memory. It goes back to its owner when dropped, unless it was borrowed.
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

    /// Memory that belongs to somebody else and stays theirs.
    pub(super) fn borrowed(owner: Rc<dyn Owner>, address: u64) -> Block {
        Block { owner, address, allocation: None }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(allocation) = &self.allocation {
            self.owner.free(allocation);
        }
    }
}
