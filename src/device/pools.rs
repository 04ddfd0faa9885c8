//! Two arenas over the same memory: of what lasts, and of what lives only while a step runs.
//!
//! Recorded work runs again at the addresses that it saw, so nobody else may hold them: as long as
//! anything is recorded on a device, what the second arena has once taken of the first stays its own.

use super::arena::{Arena, MemoryReport};

/// Who holds what the second arena has taken, in the first.
const STEP: &str = "step";

pub(super) struct Pools {
    lasting: Arena,
    transient: Arena,
    /// What `transient` has of `lasting`: address and the bytes that were asked for.
    taken: Vec<(u64, usize)>,
    padding: usize,
    /// What is asked for now is gone when the step is over.
    pub inside: bool,
}

/// Where a block goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Lasting,
    Transient,
}

impl Pools {
    pub fn with_padding(padding: usize) -> Pools {
        let arena = || Arena::with_padding(padding);
        Pools { lasting: arena(), transient: arena(), taken: Vec::new(), padding, inside: false }
    }

    /// None when a chunk of [`missing`](Self::missing) bytes must be added.
    pub fn take(&mut self, bytes: usize, holder: &'static str) -> Option<(u64, Pool)> {
        if !self.inside {
            return Some((self.lasting.take(bytes, holder)?, Pool::Lasting));
        }
        if self.transient.has_room(bytes) {
            return Some((self.transient.take(bytes, holder)?, Pool::Transient));
        }
        let wanted = self.transient.rounded(bytes);
        let address = self.lasting.take(wanted, STEP)?;
        self.taken.push((address, wanted));
        self.transient.add_chunk(address, self.lasting.rounded(wanted));
        Some((self.transient.take(bytes, holder)?, Pool::Transient))
    }

    /// The least that a chunk must have for a request of `bytes`.
    pub fn missing(&self, bytes: usize) -> usize {
        let size = self.lasting.rounded(bytes);
        if self.inside { self.lasting.rounded(size) } else { size }
    }

    pub fn add_chunk(&mut self, address: u64, bytes: usize) {
        self.lasting.add_chunk(address, bytes);
    }

    pub fn give_back(&mut self, pool: Pool, address: u64, bytes: usize, holder: &'static str) {
        match pool {
            Pool::Lasting => self.lasting.give_back(address, bytes, holder),
            Pool::Transient => self.transient.give_back(address, bytes, holder),
        }
    }

    /// Bytes of a step's memory that are in use.
    pub fn transient_used(&self) -> usize {
        self.transient.report().used
    }

    /// Nothing is recorded any more: what a step used is anybody's again.
    pub fn release(&mut self) {
        if self.transient_used() == 0 {
            self.transient = Arena::with_padding(self.padding);
            for (address, bytes) in self.taken.drain(..) {
                self.lasting.give_back(address, bytes, STEP);
            }
        }
    }

    pub fn reset_peak(&mut self) {
        self.lasting.reset_peak();
        self.transient.reset_peak();
    }

    /// A step's memory counts whole; who held it is told in its place.
    pub fn report(&self) -> MemoryReport {
        let (mut all, step) = (self.lasting.report(), self.transient.report());
        all.used -= step.reserved - step.used;
        all.peak_holders.retain(|(holder, _)| *holder != STEP);
        all.peak_holders.extend(step.peak_holders);
        all.peak_holders.sort_by_key(|&(name, n)| (std::cmp::Reverse(n), name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steps_memory_is_its_own_until_it_is_released() {
        let mut pools = Pools::with_padding(0);
        pools.add_chunk(4096, 1 << 20);
        let step = |pools: &mut Pools| {
            pools.inside = true;
            let blocks = [1000, 50_000, 7].map(|bytes| (pools.take(bytes, "a").unwrap(), bytes));
            pools.inside = false;
            for ((address, pool), bytes) in blocks {
                assert_eq!(pool, Pool::Transient);
                pools.give_back(pool, address, bytes, "a");
            }
            blocks.map(|((address, _), _)| address)
        };
        let first = step(&mut pools);
        assert_eq!(pools.transient_used(), 0);
        let (other, pool) = pools.take(50_000, "b").unwrap();
        assert_eq!(pool, Pool::Lasting);
        assert!(first.iter().all(|address| !(other..other + 50_000).contains(address)));
        assert_eq!(step(&mut pools), first, "the same addresses again");
        let report = pools.report();
        assert!(report.used < 51_000 && report.peak > 100_000, "{report:?}");
        let held: Vec<&str> = report.peak_holders.iter().map(|(name, _)| *name).collect();
        assert_eq!(held, ["a", "b"]);
        pools.give_back(pool, other, 50_000, "b");
        pools.release();
        assert_eq!(pools.take((1 << 20) - 192, "all").unwrap().0, 4096, "all of it is free again");
    }
}
