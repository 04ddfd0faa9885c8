//! Two arenas over the same memory: the persistent pool, and the graph-private pool for what lives
//! only while a step runs.
//!
//! A captured graph replays at the addresses used during its capture, so nothing else may hold
//! them. As long as a graph cache exists on the device, the graph-private pool keeps every segment
//! that it has taken from the persistent pool.

use super::arena::{Arena, MemoryReport};

/// Allocation tag in the persistent pool of the segments taken by the graph-private pool.
const STEP: &str = "step";

pub(super) struct Pools {
    persistent: Arena,
    graph_private: Arena,
    /// Segments that `graph_private` has taken from `persistent`: address and requested bytes.
    taken: Vec<(u64, usize)>,
    padding: usize,
    /// Whether to allocate from the graph-private pool: such allocations must be freed by the end
    /// of the step.
    pub inside: bool,
}

/// The pool that a block returns to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Persistent,
    GraphPrivate,
}

impl Pools {
    pub fn with_padding(padding: usize) -> Pools {
        let arena = || Arena::with_padding(padding);
        Pools {
            persistent: arena(),
            graph_private: arena(),
            taken: Vec::new(),
            padding,
            inside: false,
        }
    }

    /// Allocates a block. Returns None if a segment must be added first, of
    /// [`segment_bytes`](Self::segment_bytes) bytes.
    pub fn take(&mut self, bytes: usize, tag: &'static str) -> Option<(u64, Pool)> {
        if !self.inside {
            return Some((self.persistent.take(bytes, tag)?, Pool::Persistent));
        }
        if self.graph_private.has_room(bytes) {
            return Some((self.graph_private.take(bytes, tag)?, Pool::GraphPrivate));
        }
        let wanted = self.graph_private.rounded(bytes);
        let address = self.persistent.take(wanted, STEP)?;
        self.taken.push((address, wanted));
        self.graph_private.add_segment(address, self.persistent.rounded(wanted));
        Some((self.graph_private.take(bytes, tag)?, Pool::GraphPrivate))
    }

    /// Returns the smallest segment that can hold a request of `bytes`.
    pub fn segment_bytes(&self, bytes: usize) -> usize {
        let size = self.persistent.rounded(bytes);
        if self.inside { self.persistent.rounded(size) } else { size }
    }

    pub fn add_segment(&mut self, address: u64, bytes: usize) {
        self.persistent.add_segment(address, bytes);
    }

    pub fn give_back(&mut self, pool: Pool, address: u64, bytes: usize, tag: &'static str) {
        match pool {
            Pool::Persistent => self.persistent.give_back(address, bytes, tag),
            Pool::GraphPrivate => self.graph_private.give_back(address, bytes, tag),
        }
    }

    /// Returns the bytes in use in the graph-private pool.
    pub fn graph_private_used(&self) -> usize {
        self.graph_private.report().used
    }

    /// Returns the graph-private pool's memory to the persistent pool, after the last graph is
    /// gone. Does nothing while blocks of a step are in use.
    pub fn release(&mut self) {
        if self.graph_private_used() == 0 {
            self.graph_private = Arena::with_padding(self.padding);
            for (address, bytes) in self.taken.drain(..) {
                self.persistent.give_back(address, bytes, STEP);
            }
        }
    }

    pub fn reset_peak(&mut self) {
        self.persistent.reset_peak();
        self.graph_private.reset_peak();
    }

    /// Reports both pools. The peak includes all segments of the graph-private pool; they are
    /// reported under its own allocation tags.
    pub fn report(&self) -> MemoryReport {
        let (mut all, step) = (self.persistent.report(), self.graph_private.report());
        all.used -= step.reserved - step.used;
        all.peak_tags.retain(|(tag, _)| *tag != STEP);
        all.peak_tags.extend(step.peak_tags);
        all.peak_tags.sort_by_key(|&(name, n)| (std::cmp::Reverse(n), name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steps_memory_is_its_own_until_it_is_released() {
        let mut pools = Pools::with_padding(0);
        pools.add_segment(4096, 1 << 20);
        let step = |pools: &mut Pools| {
            pools.inside = true;
            let blocks = [1000, 50_000, 7].map(|bytes| (pools.take(bytes, "a").unwrap(), bytes));
            pools.inside = false;
            for ((address, pool), bytes) in blocks {
                assert_eq!(pool, Pool::GraphPrivate);
                pools.give_back(pool, address, bytes, "a");
            }
            blocks.map(|((address, _), _)| address)
        };
        let first = step(&mut pools);
        assert_eq!(pools.graph_private_used(), 0);
        let (other, pool) = pools.take(50_000, "b").unwrap();
        assert_eq!(pool, Pool::Persistent);
        assert!(first.iter().all(|address| !(other..other + 50_000).contains(address)));
        assert_eq!(step(&mut pools), first, "the same addresses again");
        let report = pools.report();
        assert!(report.used < 51_000 && report.peak > 100_000, "{report:?}");
        let held: Vec<&str> = report.peak_tags.iter().map(|(name, _)| *name).collect();
        assert_eq!(held, ["a", "b"]);
        pools.give_back(pool, other, 50_000, "b");
        pools.release();
        assert_eq!(pools.take((1 << 20) - 192, "all").unwrap().0, 4096, "all of it is free again");
    }
}
