//! Shadow memory: records for each word who accessed it last, and finds accesses that no barrier
//! orders.
//!
//! Time is counted in ticks: one for each barrier of a block or a warp, increasing over the blocks
//! of a launch, which run one after the other.

use crate::fault::Access;
use crate::lanes::LANES;

/// A reader that stands for several threads of one warp, plus the warp's index.
const SEVERAL_OF_WARP: u16 = 0x8000;
/// A reader that stands for threads of several warps.
const SEVERAL: u16 = 0xFFFF;

const ATOMIC: u8 = 1;
const IN_FLIGHT: u8 = 2;
/// Read through the read-only cache in this launch.
const NON_COHERENT: u8 = 4;
/// Read by a block before the last one that read it.
const READ_BEFORE: u8 = 8;

/// The record of a word. Tick 0 means never.
#[derive(Clone, Copy, Default)]
pub struct Cell {
    written: u32,
    read: u32,
    writer: u16,
    reader: u16,
    flags: u8,
}

/// Who accesses memory now, and what orders this access after earlier ones.
#[derive(Clone, Copy)]
pub struct Now {
    pub tick: u32,
    /// Ticks at which the block began, and of its last barrier.
    pub begin: u32,
    pub barrier: u32,
    /// Tick of the last barrier of the thread's warp.
    pub warp_barrier: u32,
    pub thread: u16,
}

/// What is wrong with an access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The earlier access, in words.
    Race(String),
    Unwritten,
    InFlight,
    NonCoherent,
}

impl Now {
    fn warp(&self) -> u16 {
        self.thread / LANES as u16
    }

    /// Returns whether `who` is of this thread's warp.
    fn same_warp(&self, who: u16) -> bool {
        match who {
            SEVERAL => false,
            who if who >= SEVERAL_OF_WARP => who - SEVERAL_OF_WARP == self.warp(),
            who => who / LANES as u16 == self.warp(),
        }
    }

    /// Returns whether an access of this block by `who` happened before this one.
    fn after(&self, tick: u32, who: u16) -> bool {
        tick < self.barrier
            || who == self.thread
            || (tick < self.warp_barrier && self.same_warp(who))
    }
}

fn name_of(who: u16) -> String {
    match who {
        SEVERAL => "several threads".into(),
        who if who >= SEVERAL_OF_WARP => {
            format!("several threads of warp {}", who - SEVERAL_OF_WARP)
        }
        who => format!("thread {who}"),
    }
}

impl Cell {
    /// Checks an access of a word in shared memory and records it.
    pub fn access_shared(&mut self, access: Access, now: &Now) -> Result<(), Conflict> {
        if self.written < now.begin {
            // Nothing of an earlier block is left.
            *self = Cell::default();
            if access != Access::Write {
                return Err(Conflict::Unwritten);
            }
        }
        self.access_in_block(access, now)
    }

    /// Checks an access of a word in global memory and records it.
    pub fn access_global(&mut self, access: Access, now: &Now) -> Result<(), Conflict> {
        let both_atomic = access == Access::Atomic && self.flags & ATOMIC != 0;
        if self.written > 0 && self.written < now.begin && !both_atomic {
            return Err(Conflict::Race("another block wrote it".into()));
        }
        if access.reads() {
            if self.read > 0 && self.read < now.begin {
                self.flags |= READ_BEFORE;
            }
            if access == Access::ReadNonCoherent {
                if self.written > 0 {
                    return Err(Conflict::NonCoherent);
                }
                self.flags |= NON_COHERENT;
            }
        } else {
            if self.flags & NON_COHERENT != 0 {
                return Err(Conflict::NonCoherent);
            }
            let by_others = self.flags & READ_BEFORE != 0;
            if by_others || (self.read > 0 && self.read < now.begin) {
                return Err(Conflict::Race("another block read it".into()));
            }
        }
        self.access_in_block(access, now)
    }

    fn access_in_block(&mut self, access: Access, now: &Now) -> Result<(), Conflict> {
        if self.flags & IN_FLIGHT != 0 {
            return Err(Conflict::InFlight);
        }
        let both_atomic = access == Access::Atomic && self.flags & ATOMIC != 0;
        if self.written >= now.begin && !both_atomic && !now.after(self.written, self.writer) {
            let how = if self.flags & ATOMIC != 0 { "updated" } else { "wrote" };
            return Err(Conflict::Race(format!("{} {how} it", name_of(self.writer))));
        }
        if access.reads() {
            self.reader = match self.reader {
                _ if self.read < now.barrier => now.thread,
                same if same == now.thread => same,
                other if now.same_warp(other) => SEVERAL_OF_WARP + now.warp(),
                _ => SEVERAL,
            };
            self.read = now.tick;
            return Ok(());
        }
        if self.read >= now.begin && !now.after(self.read, self.reader) {
            return Err(Conflict::Race(format!("{} read it", name_of(self.reader))));
        }
        (self.written, self.writer) = (now.tick, now.thread);
        match access {
            Access::Atomic => self.flags |= ATOMIC,
            _ => self.flags &= !ATOMIC,
        }
        Ok(())
    }

    /// Marks the word as the target of an asynchronous copy that is under way.
    pub fn begin_copy(&mut self) {
        self.flags |= IN_FLIGHT;
    }

    /// Records that the copy has arrived: the thread that waited for it wrote the word.
    pub fn end_copy(&mut self, now: &Now) {
        self.flags &= !IN_FLIGHT;
        (self.written, self.writer) = (now.tick, now.thread);
    }
}
