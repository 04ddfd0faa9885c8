//! Counts of what a launch executed, for models of a GPU's time.

use serde::Serialize;

use crate::class::Class;
use crate::lanes::{LANES, Longs, lanes};

/// Bytes of a sector, the unit of traffic between caches and memory.
const SECTOR: u64 = 32;
/// Shared memory has this many banks of four bytes.
const BANKS: u64 = 32;

/// How often instructions of a class were executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Executed {
    /// By warps: what an issue slot is spent on.
    pub warps: u64,
    /// By threads. Less than 32 for each warp means lanes that were switched off.
    pub threads: u64,
}

/// Traffic of loads or stores in global memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GlobalTraffic {
    /// Accesses by warps.
    pub accesses: u64,
    /// Bytes that the threads asked for.
    pub bytes: u64,
    /// 32-byte sectors that the warps touched; 32 · sectors / bytes is 1 if all are used whole.
    pub sectors: u64,
    /// Sectors that a block's share of a multiprocessor's cache does not hold: those that come from
    /// the second-level cache. Stores write all of theirs through.
    pub missed: u64,
}

/// Traffic of loads or stores in shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SharedTraffic {
    /// Accesses by warps.
    pub accesses: u64,
    /// Bytes that the threads asked for.
    pub bytes: u64,
    /// Cycles of the 32 banks.
    pub wavefronts: u64,
    /// Cycles beyond those of an access without bank conflicts.
    pub conflicts: u64,
}

/// What launches of a kernel executed. Counts add up over launches with [`Statistics::add`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Launches that were counted.
    pub launches: u64,
    /// Blocks that were executed, of all launches.
    pub blocks: u64,
    /// Warps of those blocks.
    pub warps: u64,
    executed: [Executed; Class::ALL.len()],
    /// Loads from global memory, with those of asynchronous copies.
    pub global_loads: GlobalTraffic,
    /// Stores to global memory, and atomics.
    pub global_stores: GlobalTraffic,
    /// Loads from shared memory, with those of `ldmatrix`.
    pub shared_loads: SharedTraffic,
    /// Stores to shared memory, and atomics.
    pub shared_stores: SharedTraffic,
    cache: Cache,
}

/// Sets of the cache that a block has to itself, and sectors of a set: 32 KiB, an eighth of an
/// H100's, because that keeps eight blocks of 256 threads.
const SETS: usize = 256;
const WAYS: usize = 4;

/// The sectors that were used last, by this block and those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cache {
    /// One more than the sectors' numbers, the one that was used last first; 0 where there is none.
    sets: Vec<[u64; WAYS]>,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { sets: vec![[0; WAYS]; SETS] }
    }
}

impl Cache {
    /// Looks for a sector, and keeps it.
    fn holds(&mut self, sector: u64) -> bool {
        // Multiplied, so that tensors whose addresses differ in high bits alone part.
        let hash = (sector + (sector >> 24) * 0x9E37).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
        let set = &mut self.sets[hash as usize % SETS];
        let found = set.iter().position(|&known| known == sector + 1);
        let last = found.unwrap_or(WAYS - 1);
        set[..=last].rotate_right(1);
        set[0] = sector + 1;
        found.is_some()
    }
}

impl Statistics {
    /// Returns how often instructions of a class were executed.
    pub fn of(&self, class: Class) -> Executed {
        self.executed[class as usize]
    }

    /// Returns how often instructions of any class were executed.
    pub fn total(&self) -> Executed {
        self.executed.iter().fold(Executed::default(), |sum, of| Executed {
            warps: sum.warps + of.warps,
            threads: sum.threads + of.threads,
        })
    }

    /// Adds the counts of other launches.
    pub fn add(&mut self, other: &Statistics) {
        self.launches += other.launches;
        self.blocks += other.blocks;
        self.warps += other.warps;
        for (sum, of) in self.executed.iter_mut().zip(&other.executed) {
            sum.warps += of.warps;
            sum.threads += of.threads;
        }
        self.global_loads.add(other.global_loads);
        self.global_stores.add(other.global_stores);
        self.shared_loads.add(other.shared_loads);
        self.shared_stores.add(other.shared_stores);
    }

    /// Returns the counts as JSON: an object with `launches`, `blocks`, `warps`, `executed` by
    /// class, and the traffic.
    pub fn json(&self) -> serde_json::Value {
        let executed: serde_json::Map<String, serde_json::Value> = (Class::ALL.iter())
            .map(|&class| (class.name().into(), serde_json::json!(self.of(class))))
            .collect();
        serde_json::json!({
            "launches": self.launches,
            "blocks": self.blocks,
            "warps": self.warps,
            "executed": executed,
            "global_loads": self.global_loads,
            "global_stores": self.global_stores,
            "shared_loads": self.shared_loads,
            "shared_stores": self.shared_stores,
        })
    }

    /// Counts a load from global memory of `bytes` bytes by each lane of a mask.
    pub(crate) fn load(&mut self, addresses: &Longs, mask: u32, bytes: u32) {
        let cache = &mut self.cache;
        self.global_loads.count(addresses, mask, bytes, |sector| cache.holds(sector));
    }

    /// Counts a store or an atomic in global memory.
    pub(crate) fn store(&mut self, addresses: &Longs, mask: u32, bytes: u32) {
        self.global_stores.count(addresses, mask, bytes, |_| false);
    }

    /// Forgets all counts, but not what the cache holds.
    pub(crate) fn forget(&mut self) {
        let cache = std::mem::take(&mut self.cache);
        *self = Statistics { cache, ..Statistics::default() };
    }

    pub(crate) fn count(&mut self, class: Class, mask: u32) {
        let executed = &mut self.executed[class as usize];
        executed.warps += 1;
        executed.threads += u64::from(mask.count_ones());
    }
}

impl GlobalTraffic {
    fn add(&mut self, other: GlobalTraffic) {
        self.accesses += other.accesses;
        self.bytes += other.bytes;
        self.sectors += other.sectors;
        self.missed += other.missed;
    }

    /// Counts an access of `bytes` bytes by each lane of a mask; `holds` tells whether a cache has
    /// a sector.
    fn count(&mut self, addresses: &Longs, mask: u32, bytes: u32, holds: impl FnMut(u64) -> bool) {
        let mut distinct = Distinct::default();
        for lane in lanes(mask) {
            let address = addresses[lane];
            // Aligned accesses of up to 16 bytes do not cross a sector.
            distinct.insert(address / SECTOR);
        }
        self.accesses += 1;
        self.bytes += u64::from(bytes) * u64::from(mask.count_ones());
        self.sectors += distinct.count as u64;
        let mut holds = holds;
        let sectors = distinct.numbers[..distinct.count].iter();
        self.missed += sectors.filter(|&&sector| !holds(sector)).count() as u64;
    }
}

impl SharedTraffic {
    fn add(&mut self, other: SharedTraffic) {
        self.accesses += other.accesses;
        self.bytes += other.bytes;
        self.wavefronts += other.wavefronts;
        self.conflicts += other.conflicts;
    }

    /// Counts an access of `bytes` bytes by each lane of a mask. A wavefront serves at most 128
    /// bytes, so wide accesses take the lanes in two or four parts.
    pub(crate) fn count(&mut self, addresses: &Longs, mask: u32, bytes: u32) {
        self.accesses += 1;
        self.bytes += u64::from(bytes) * u64::from(mask.count_ones());
        let parts = (bytes / 4).clamp(1, 4);
        let lanes_of_part = LANES as u32 / parts;
        for part in 0..parts {
            let window = if parts == 1 { !0 } else { (1u32 << lanes_of_part) - 1 };
            let mask = mask & (window << (part * lanes_of_part));
            if mask == 0 {
                continue;
            }
            let cycles = cycles(addresses, mask, bytes);
            self.wavefronts += cycles;
            self.conflicts += cycles - 1;
        }
    }
}

/// Returns the largest number of distinct words that lie in one bank.
fn cycles(addresses: &Longs, mask: u32, bytes: u32) -> u64 {
    let words_of_lane = u64::from(bytes.div_ceil(4));
    let first = addresses[mask.trailing_zeros() as usize] / 4;
    // Most accesses are consecutive words, or all the same one.
    let (mut consecutive, mut same) = (true, true);
    for lane in lanes(mask) {
        let word = addresses[lane] / 4;
        let ahead = lane as u64 - u64::from(mask.trailing_zeros());
        consecutive &= word == first + ahead * words_of_lane;
        same &= word == first;
    }
    if consecutive || same {
        return 1;
    }
    let mut words = Distinct::default();
    let mut banks = [0u64; BANKS as usize];
    for lane in lanes(mask) {
        for word in 0..words_of_lane {
            let word = addresses[lane] / 4 + word;
            if words.insert(word) {
                banks[(word % BANKS) as usize] += 1;
            }
        }
    }
    banks.into_iter().max().unwrap_or(1).max(1)
}

/// A small set of numbers, most of which arrive in order.
struct Distinct {
    numbers: [u64; 4 * LANES],
    count: usize,
}

impl Default for Distinct {
    fn default() -> Distinct {
        Distinct { numbers: [0; 4 * LANES], count: 0 }
    }
}

impl Distinct {
    /// Returns whether the number is new.
    fn insert(&mut self, number: u64) -> bool {
        if self.numbers[..self.count].iter().rev().any(|&known| known == number) {
            return false;
        }
        self.numbers[self.count] = number;
        self.count += 1;
        true
    }
}
