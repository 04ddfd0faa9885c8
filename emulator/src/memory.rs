//! Shadow memory: records for each word who wrote and who read it last, and detects accesses that
//! no barrier orders.

use std::ops::Range;

use crate::report::{Access, Problem};

/// Lanes of a warp.
pub const WARP: usize = 32;

/// The last access of a kind: by one thread, by several threads of one warp, or by several threads.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Stamp {
    /// When it happened; 0 means never.
    tick: u32,
    who: u16,
}

const SEVERAL_OF_WARP: u16 = 0x8000;
const SEVERAL: u16 = 0xFFFF;
const ATOMICALLY: u16 = 0xFFFE;

impl Stamp {
    fn warp(self) -> Option<usize> {
        match self.who {
            SEVERAL | ATOMICALLY => None,
            who if who >= SEVERAL_OF_WARP => Some((who - SEVERAL_OF_WARP) as usize),
            who => Some(who as usize / WARP),
        }
    }

    fn describe(self) -> String {
        match self.who {
            SEVERAL => "several threads".into(),
            ATOMICALLY => "atomic additions".into(),
            who if who >= SEVERAL_OF_WARP => {
                format!("several threads of warp {}", who - SEVERAL_OF_WARP)
            }
            who => format!("thread {who}"),
        }
    }
}

/// The index of a block plus one; 0 means none.
type ByBlock = u32;
const SEVERAL_BLOCKS: ByBlock = u32::MAX;

#[derive(Clone, Copy, Default)]
struct Word {
    written: Stamp,
    read: Stamp,
    written_by: ByBlock,
    read_by: ByBlock,
    /// The word is the target of an asynchronous copy that was not waited for.
    in_flight: bool,
}

/// A tensor, or an array in shared memory.
pub struct Region {
    pub name: String,
    pub range: Range<u64>,
    /// Bytes that are tracked as one word.
    word: u64,
    writable: bool,
    /// It is shared memory of a block, which is uninitialized until it is written.
    shared: bool,
    words: Vec<Word>,
}

impl Region {
    pub fn new(name: String, range: Range<u64>, word: usize, writable: bool, shared: bool) -> Self {
        let words = (range.end - range.start).div_ceil(word as u64) as usize;
        Region {
            name,
            range,
            word: word as u64,
            writable,
            shared,
            words: vec![Word::default(); words],
        }
    }
}

/// Who accesses memory now, and what orders this access after earlier ones.
#[derive(Clone, Copy)]
pub struct Now {
    pub tick: u32,
    pub thread: usize,
    pub block: i64,
    /// Ticks of the block's last barrier and of the last exchange of the thread's warp.
    pub barrier: u32,
    pub exchange: u32,
}

impl Now {
    fn after(&self, stamp: Stamp) -> bool {
        stamp.tick < self.barrier
            || stamp.who as usize == self.thread
            || (stamp.warp() == Some(self.thread / WARP) && stamp.tick < self.exchange)
    }

    fn stamp(&self) -> Stamp {
        Stamp { tick: self.tick, who: self.thread as u16 }
    }

    /// Returns the stamp of a read after earlier ones.
    fn read_after(&self, before: Stamp) -> Stamp {
        let mine = self.stamp();
        let who = if before.tick < self.barrier || before.who == mine.who {
            mine.who
        } else if before.warp() == mine.warp() {
            SEVERAL_OF_WARP + (self.thread / WARP) as u16
        } else {
            SEVERAL
        };
        Stamp { who, ..mine }
    }
}

/// All memory that a launch may access.
#[derive(Default)]
pub struct Memory {
    regions: Vec<Region>,
    /// Region of the last access, which is searched first.
    recent: usize,
}

impl Memory {
    pub fn add(&mut self, region: Region) {
        self.regions.push(region);
    }

    /// Removes the shared memory of a block.
    pub fn end_block(&mut self) {
        self.regions.retain(|region| !region.shared);
        self.recent = 0;
    }

    fn find(&mut self, address: u64) -> Option<&mut Region> {
        let at = match self.regions.get(self.recent) {
            Some(region) if region.range.contains(&address) => self.recent,
            _ => self.regions.iter().position(|region| region.range.contains(&address))?,
        };
        self.recent = at;
        Some(&mut self.regions[at])
    }

    /// Describes the position of an address outside of every region.
    fn nearest(&self, address: u64) -> String {
        let distance = |region: &Region| {
            if address < region.range.start {
                region.range.start - address
            } else {
                address - region.range.end + 1
            }
        };
        match self.regions.iter().min_by_key(|region| distance(region)) {
            Some(region) if distance(region) < 1 << 30 => {
                let side = if address < region.range.start { "before" } else { "past the end of" };
                let bytes = distance(region) - u64::from(side != "before");
                format!("{bytes} bytes {side} `{}`", region.name)
            }
            _ => format!("at {address:#x}, far from any argument"),
        }
    }

    /// Records an access, or returns what is wrong with it.
    pub fn access(
        &mut self,
        address: u64,
        bytes: usize,
        access: Access,
        now: Now,
    ) -> Result<(), Problem> {
        let outside =
            |memory: &Memory, at| Err(Problem::OutOfBounds { access, what: memory.nearest(at) });
        let Some(region) = self.find(address) else { return outside(self, address) };
        let last = address + bytes as u64 - 1;
        if last >= region.range.end {
            return outside(self, last);
        }
        if access != Access::Read && !region.writable {
            return Err(Problem::ReadOnly { name: region.name.clone() });
        }
        let first = ((address - region.range.start) / region.word) as usize;
        let last = ((last - region.range.start) / region.word) as usize;
        for i in first..=last {
            let element = |other: String| Problem::Race {
                access,
                name: region.name.clone(),
                element: i,
                other,
            };
            let word = &mut region.words[i];
            if word.in_flight {
                return Err(Problem::InFlight { name: region.name.clone(), element: i });
            }
            if access == Access::Read && region.shared && word.written.tick == 0 {
                return Err(Problem::Unwritten { name: region.name.clone(), element: i });
            }
            let both_atomic = access == Access::Atomic && word.written.who == ATOMICALLY;
            if word.written.tick > 0 && !both_atomic && !now.after(word.written) {
                return Err(element(format!("{} wrote it", word.written.describe())));
            }
            let me = now.block as ByBlock + 1;
            if word.written_by != 0 && word.written_by != me && !region.shared {
                return Err(element(format!("block {} wrote it", word.written_by - 1)));
            }
            if access == Access::Read {
                word.read = now.read_after(word.read);
                word.read_by =
                    if word.read_by == 0 || word.read_by == me { me } else { SEVERAL_BLOCKS };
                continue;
            }
            if word.read.tick > 0 && !now.after(word.read) {
                return Err(element(format!("{} read it", word.read.describe())));
            }
            if word.read_by != 0 && word.read_by != me && !region.shared {
                let who = if word.read_by == SEVERAL_BLOCKS {
                    "another block".into()
                } else {
                    format!("block {}", word.read_by - 1)
                };
                return Err(element(format!("{who} read it")));
            }
            word.written_by = me;
            word.written = now.stamp();
            if access == Access::Atomic {
                word.written.who = ATOMICALLY;
            }
        }
        Ok(())
    }

    /// Marks or unmarks the target of an asynchronous copy.
    pub fn in_flight(&mut self, address: u64, bytes: usize, flying: bool) {
        let Some(region) = self.find(address) else { return };
        let first = ((address - region.range.start) / region.word) as usize;
        let count = bytes.div_ceil(region.word as usize);
        region.words[first..first + count].iter_mut().for_each(|word| word.in_flight = flying);
    }
}
