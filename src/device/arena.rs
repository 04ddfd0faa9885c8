//! Device memory allocator: best fit within large segments, whose free neighbors are merged.
//!
//! The order of requests is the same in every step, so a step gets the same addresses as the one
//! before it. The arena tracks its peak and the allocation tags that made it up.

use std::collections::{BTreeMap, BTreeSet};

/// Alignment of sizes and addresses in bytes: a cache line, or a GPU's memory transaction.
pub const ALIGNMENT: usize = 64;
/// Padding of large blocks, so that equal-sized tensors do not start at the same offset within
/// their pages and compete for the same cache sets.
const STAGGER: usize = 3 * ALIGNMENT;
/// Smallest block that is padded by [`STAGGER`].
const STAGGER_FROM: usize = 16 << 10;

/// How an arena treats its blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Bytes left free after every block.
    pub padding: usize,
    /// Whether a block takes a whole free range of exactly its own size, so that a block is an
    /// allocation of the backend's.
    pub exact: bool,
}

/// An allocator that only does the bookkeeping: it never touches the memory it hands out.
#[derive(Default)]
pub struct Arena {
    layout: Layout,
    /// Where the backend's allocations begin. No block reaches from one into the next, even if they
    /// are neighbors: a copy of both would fail.
    boundaries: BTreeSet<u64>,
    /// Free ranges: sizes by address, and (size, address) in order.
    free: BTreeMap<u64, usize>,
    by_size: BTreeSet<(usize, u64)>,
    /// Bytes in use now, and the peak.
    used: usize,
    peak: usize,
    reserved: usize,
    /// Bytes in use by allocation tag, now and at the peak.
    tags: BTreeMap<&'static str, usize>,
    peak_tags: BTreeMap<&'static str, usize>,
}

/// Memory usage of a device, in bytes.
#[derive(Clone, Debug, Default)]
pub struct MemoryReport {
    /// Bytes in use.
    pub used: usize,
    /// Largest number of bytes in use since the last reset.
    pub peak: usize,
    /// Bytes reserved from the system or the driver.
    pub reserved: usize,
    /// Bytes by allocation tag at the peak, largest first.
    pub peak_tags: Vec<(&'static str, usize)>,
}

impl Arena {
    pub fn new(layout: Layout) -> Arena {
        Arena { layout, ..Arena::default() }
    }

    /// Returns an arena without memory for parts of the same allocations.
    pub fn within_the_same(&self) -> Arena {
        let (layout, boundaries) = (self.layout, self.boundaries.clone());
        Arena { layout, boundaries, ..Arena::default() }
    }

    /// Notes that an allocation of the backend's begins at an address.
    pub fn add_boundary(&mut self, address: u64) {
        self.boundaries.insert(address);
    }

    /// Returns the bytes that a request of `bytes` occupies.
    pub fn rounded(&self, bytes: usize) -> usize {
        if self.layout.exact {
            return bytes.max(1) + self.layout.padding;
        }
        let size = (bytes.max(1) + self.layout.padding).div_ceil(ALIGNMENT) * ALIGNMENT;
        if size >= STAGGER_FROM { size + STAGGER } else { size }
    }

    pub fn add_segment(&mut self, address: u64, bytes: usize) {
        self.reserved += bytes;
        self.insert(address, bytes);
    }

    /// Forgets an allocation of the backend's.
    pub fn remove_boundary(&mut self, address: u64) {
        self.boundaries.remove(&address);
    }

    /// Removes a segment, and returns whether it was there and no block occupied any of it.
    pub fn remove_segment(&mut self, address: u64, bytes: usize) -> bool {
        let Some((&start, &length)) = self.free.range(..=address).next_back() else {
            return false;
        };
        let (range_end, end) = (start + length as u64, address + bytes as u64);
        if end > range_end {
            return false;
        }
        self.remove(start, length);
        for (from, to) in [(start, address), (end, range_end)] {
            if from < to {
                self.insert(from, (to - from) as usize);
            }
        }
        self.reserved -= bytes;
        true
    }

    /// Returns whether a free range is large enough for a request.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.best_fit(self.rounded(bytes)).is_some()
    }

    /// Returns the size and address of the free range that a block of `size` bytes comes from.
    fn best_fit(&self, size: usize) -> Option<(usize, u64)> {
        let found = self.by_size.range((size, 0)..).next().copied();
        found.filter(|(range, _)| !self.layout.exact || *range == size)
    }

    /// Allocates from the smallest free range that fits, at the lowest address. Returns None if a
    /// segment must be added.
    pub fn take(&mut self, bytes: usize, tag: &'static str) -> Option<u64> {
        let size = self.rounded(bytes);
        let (range, address) = self.best_fit(size)?;
        self.remove(address, range);
        if range > size {
            self.insert(address + size as u64, range - size);
        }
        self.used += size;
        *self.tags.entry(tag).or_default() += size;
        if self.used > self.peak {
            self.peak = self.used;
            self.peak_tags.clone_from(&self.tags);
        }
        Some(address)
    }

    pub fn give_back(&mut self, address: u64, bytes: usize, tag: &'static str) {
        let size = self.rounded(bytes);
        self.used -= size;
        if let Some(held) = self.tags.get_mut(tag) {
            *held -= size;
        }
        let (mut start, mut length) = (address, size);
        if let Some((&before, &n)) = self.free.range(..address).next_back()
            && before + n as u64 == address
            && !self.boundaries.contains(&address)
        {
            self.remove(before, n);
            (start, length) = (before, length + n);
        }
        if let Some((&after, &n)) = self.free.range(address..).next()
            && start + length as u64 == after
            && !self.boundaries.contains(&after)
        {
            self.remove(after, n);
            length += n;
        }
        self.insert(start, length);
    }

    /// Resets the peak to the current usage.
    pub fn reset_peak(&mut self) {
        self.peak = self.used;
        self.peak_tags.clone_from(&self.tags);
    }

    pub fn report(&self) -> MemoryReport {
        let mut peak_tags: Vec<_> =
            self.peak_tags.iter().filter(|h| *h.1 > 0).map(|(&name, &n)| (name, n)).collect();
        peak_tags.sort_by_key(|&(name, n)| (std::cmp::Reverse(n), name));
        MemoryReport { used: self.used, peak: self.peak, reserved: self.reserved, peak_tags }
    }

    fn insert(&mut self, address: u64, bytes: usize) {
        self.free.insert(address, bytes);
        self.by_size.insert((bytes, address));
    }

    fn remove(&mut self, address: u64, bytes: usize) {
        self.free.remove(&address);
        self.by_size.remove(&(bytes, address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_neighbors_and_reuses_addresses() {
        let mut arena = Arena::default();
        arena.add_segment(4096, 1 << 20);
        let step = |arena: &mut Arena| {
            let a = arena.take(1000, "a").unwrap();
            let b = arena.take(50_000, "b").unwrap();
            let c = arena.take(7, "c").unwrap();
            arena.give_back(a, 1000, "a");
            arena.give_back(c, 7, "c");
            arena.give_back(b, 50_000, "b");
            [a, b, c]
        };
        let first = step(&mut arena);
        assert_eq!(first, step(&mut arena));
        assert_eq!(arena.free.len(), 1, "freed neighbors were not merged");
        assert_eq!(arena.used, 0);
        assert_eq!(arena.report().peak, 1024 + 50_048 + STAGGER + 64);
        assert_eq!(arena.report().peak_tags[0].0, "b");
        assert!(arena.take(2 << 20, "too large").is_none());
    }

    #[test]
    fn neighboring_allocations_are_never_one() {
        let mut arena = Arena::default();
        for address in [4096, 8192] {
            arena.add_boundary(address);
            arena.add_segment(address, 4096);
        }
        for _ in 0..2 {
            let blocks = [0; 2].map(|_| arena.take(4096, "a").unwrap());
            assert_eq!(blocks, [4096, 8192]);
            assert!(arena.take(1, "a").is_none());
            blocks.into_iter().for_each(|address| arena.give_back(address, 4096, "a"));
            assert!(!arena.has_room(4097), "{:?}", arena.free);
        }
    }

    #[test]
    fn an_exact_arena_splits_nothing() {
        let mut arena = Arena::new(Layout { exact: true, padding: 0 });
        assert_eq!(arena.rounded(20_001), 20_001);
        arena.add_segment(4096, 20_001);
        assert!(arena.take(20_000, "a").is_none());
        assert_eq!(arena.take(20_001, "a"), Some(4096));
        arena.give_back(4096, 20_001, "a");
        assert_eq!(arena.take(20_001, "a"), Some(4096));
    }
}
