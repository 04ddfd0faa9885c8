//! Several processes that train together: which of them this is, and what they exchange.

mod launcher;
mod mpi;

use std::ops::Range;
use std::rc::Rc;

pub use launcher::{Launched, Launcher};
pub use mpi::Mpi;

use crate::dtype::DType;
use crate::{Error, Result};

/// The position of a process among those that train together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Index among the processes of this machine.
    pub local_rank: usize,
    /// Number of processes on this machine.
    pub local_size: usize,
}

impl Place {
    /// The place of a process that trains by itself.
    pub const ALONE: Place = Place { rank: 0, size: 1, local_rank: 0, local_size: 1 };

    /// Returns whether this process logs, saves and reports for all.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// Returns this process's share of a batch of `all` images.
    ///
    /// # Errors
    /// [`Error::Config`] if the processes cannot share the batch equally.
    pub fn slots(&self, all: usize) -> Result<Slots> {
        if !all.is_multiple_of(self.size) {
            let size = self.size;
            return Err(Error::config(format!(
                "data.batch = {all} cannot be split over {size} processes: --set data.batch={} \
                 gives each {}",
                all.next_multiple_of(size),
                all.div_ceil(size),
            )));
        }
        let count = all / self.size;
        Ok(Slots { first: self.rank * count, count, all })
    }

    /// Returns how many of the machine's cores belong to this process.
    pub fn cores(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores / self.local_size.max(1)).max(1)
    }
}

/// The images of an iteration's batch that one process computes. Random numbers belong to an image's
/// slot in the whole batch, so that the number of processes does not change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// The first slot.
    pub first: usize,
    /// The number of slots, at least one.
    pub count: usize,
    /// The number of images in the whole batch.
    pub all: usize,
}

impl Slots {
    /// Returns all slots of a batch.
    pub fn whole(batch: usize) -> Slots {
        Slots { first: 0, count: batch, all: batch }
    }

    /// Returns the slots as a range.
    pub fn range(&self) -> Range<usize> {
        self.first..self.first + self.count
    }
}

/// The images over which batch norm takes its statistics in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchNormOver {
    /// The whole batch, so that the number of processes does not change the result.
    #[default]
    All,
    /// The images of one process.
    Rank,
}

/// What processes exchange. Every process makes the same calls in the same order, and each call has
/// the same size in all of them. Addresses are in the memory of the device that joined
/// ([`Device::join`](super::Device::join)), and a call comes after all work submitted before.
pub trait Collectives {
    /// Returns this process's place.
    fn place(&self) -> Place;

    /// Replaces numbers (`f32` or `f64`) by their means over all processes, the same bits in each.
    fn all_reduce_mean(&self, address: u64, elements: usize, dtype: DType) -> Result<()>;

    /// Copies `bytes` of every process to `to`, in the order of their ranks.
    fn all_gather(&self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// Ends all processes of the group at once, this one too if the launcher can.
    fn abort(&self);
}

/// The group that a device has joined.
pub(super) struct Group {
    pub collectives: Rc<dyn Collectives>,
    pub batch_norm: BatchNormOver,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_shared_equally_or_not_at_all() {
        let place = |rank, size| Place { rank, size, local_rank: 0, local_size: 1 };
        assert_eq!(place(2, 3).slots(6).unwrap(), Slots { first: 4, count: 2, all: 6 });
        assert_eq!(Place::ALONE.slots(5).unwrap(), Slots::whole(5));
        let told = place(0, 8).slots(2).unwrap_err().to_string();
        let right =
            "data.batch = 2 cannot be split over 8 processes: --set data.batch=8 gives each 1";
        assert_eq!(told, right);
    }
}
