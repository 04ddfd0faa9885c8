//! Two arenas over the same memory: the persistent pool, and the graph-private pool for what lives
//! only while a step runs.
//!
//! A captured graph replays at the addresses used during its capture, so nothing else may hold
//! them. As long as a graph cache exists on the device, the graph-private pool keeps every segment
//! that it has taken from the persistent pool.

use super::arena::{Arena, Layout, MemoryReport};

/// Allocation tag in the persistent pool of the segments taken by the graph-private pool.
const STEP: &str = "step";

pub(super) struct Pools {
    persistent: Arena,
    graph_private: Arena,
    /// Segments that `graph_private` has taken from `persistent`: address and requested bytes.
    taken: Vec<(u64, usize)>,
    /// Segments reserved from the backend: address and bytes.
    segments: Vec<(u64, usize)>,
    /// The most bytes that may be reserved from the backend.
    pub limit: Option<usize>,
    /// Number of graphs that replay at the addresses of the graph-private pool.
    pub graphs: usize,
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
    /// Creates pools without memory. With `exact`, each block is a whole segment.
    pub fn new(padding: usize, exact: bool) -> Pools {
        let arena = || Arena::new(Layout { padding, exact });
        Pools {
            persistent: arena(),
            graph_private: arena(),
            taken: Vec::new(),
            segments: Vec::new(),
            limit: None,
            graphs: 0,
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
        self.persistent.add_boundary(address);
        self.graph_private.add_boundary(address);
        self.persistent.add_segment(address, bytes);
        self.segments.push((address, bytes));
    }

    /// Removes the segments that no block occupies, and returns their addresses. Memory between two
    /// blocks cannot be used for a larger one; memory of a whole segment can.
    pub fn take_unused_segments(&mut self) -> Vec<u64> {
        let (step, persistent) = (&mut self.graph_private, &mut self.persistent);
        if self.graphs == 0 {
            self.taken.retain(|&(address, bytes)| {
                let unused = step.remove_segment(address, persistent.rounded(bytes));
                if unused {
                    persistent.give_back(address, bytes, STEP);
                }
                !unused
            });
        }
        let mut unused = Vec::new();
        self.segments.retain(|&(address, bytes)| {
            let is_unused = persistent.remove_segment(address, bytes);
            if is_unused {
                persistent.remove_boundary(address);
                step.remove_boundary(address);
                unused.push(address);
            }
            !is_unused
        });
        unused
    }

    /// Returns the bytes reserved from the backend.
    pub fn reserved(&self) -> usize {
        self.persistent.report().reserved
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
            self.graph_private = self.persistent.within_the_same();
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
    fn segments_without_blocks_are_given_back_unless_a_graph_needs_them() {
        let mut pools = Pools::new(0, false);
        let segment = 1 << 20;
        for address in [segment, 3 * segment, 4 * segment] {
            pools.add_segment(address, segment as usize);
        }
        let (kept, _) = pools.take(1000, "kept").unwrap();
        pools.inside = true;
        let (block, pool) = pools.take(1 << 19, "a").unwrap();
        let (other, _) = pools.take(1 << 19, "a").unwrap();
        pools.inside = false;
        assert_eq!([kept, block, other], [segment, segment + 1024, 3 * segment]);
        pools.give_back(pool, other, 1 << 19, "a");
        pools.graphs = 1;
        assert_eq!(pools.take_unused_segments(), [4 * segment]);
        pools.graphs = 0;
        assert_eq!(pools.take_unused_segments(), [3 * segment]);
        pools.give_back(pool, block, 1 << 19, "a");
        assert_eq!(pools.take_unused_segments(), [0; 0]);
        pools.give_back(Pool::Persistent, kept, 1000, "kept");
        assert_eq!(pools.take_unused_segments(), [segment]);
        assert_eq!(pools.reserved(), 0);
        assert!(pools.take(1, "none").is_none());
    }

    #[test]
    fn exact_pools_ask_for_a_segment_for_each_block() {
        let mut pools = Pools::new(0, true);
        for (inside, address) in [(false, 4096), (true, 5096), (true, 6096)] {
            pools.inside = inside;
            assert!(pools.take(1000, "a").is_none());
            assert_eq!(pools.segment_bytes(1000), 1000);
            pools.add_segment(address, 1000);
            assert_eq!(pools.take(1000, "a").unwrap().0, address);
        }
        pools.give_back(Pool::GraphPrivate, 5096, 1000, "a");
        pools.give_back(Pool::GraphPrivate, 6096, 1000, "a");
        assert!(pools.take(2000, "a").is_none(), "two allocations became one");
    }

    #[test]
    fn a_steps_memory_is_its_own_until_it_is_released() {
        let mut pools = Pools::new(0, false);
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
