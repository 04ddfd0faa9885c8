//! The state of a warp: registers, and where each of its lanes is.

use std::collections::VecDeque;

use crate::lanes::{FULL, LANES, Registers, lanes};
use crate::memory::Local;

/// An asynchronous copy to shared memory that is under way.
pub struct Copy {
    pub to: u64,
    pub data: [u8; 16],
    pub bytes: usize,
}

/// Asynchronous copies of a lane: those not yet committed, and groups not yet waited for.
#[derive(Default)]
pub struct Copies {
    pub open: Vec<Copy>,
    pub groups: VecDeque<Vec<Copy>>,
}

pub struct Warp {
    pub index: u32,
    pub registers: Registers,
    pub local: Local,
    pub copies: Vec<Copies>,
    /// Lanes that exist, as the last warp of a block may be incomplete.
    pub existing: u32,
    pub running: u32,
    /// Lanes that wait at a block's barrier.
    pub at_barrier: u32,
    /// Lanes that wait in a warp operation, and the lanes that each waits for.
    pub exchanging: u32,
    pub members: [u32; LANES],
    /// The next instruction of each lane that does not run, and of those about to.
    pub at: [u32; LANES],
    /// Tick of the warp's last barrier.
    pub barrier: u32,
}

impl Warp {
    pub fn new(index: u32, lane_count: usize, registers: Registers, local: u32) -> Warp {
        Warp {
            index,
            registers,
            local: Local::new(local, LANES),
            copies: (0..LANES).map(|_| Copies::default()).collect(),
            existing: if lane_count == LANES { FULL } else { (1 << lane_count) - 1 },
            running: 0,
            at_barrier: 0,
            exchanging: 0,
            members: [0; LANES],
            at: [0; LANES],
            barrier: 0,
        }
    }

    /// Puts every lane at the first instruction.
    pub fn begin_block(&mut self, tick: u32) {
        self.local.begin_block();
        self.copies.iter_mut().for_each(|copies| *copies = Copies::default());
        (self.running, self.at_barrier, self.exchanging) = (self.existing, 0, 0);
        self.at = [0; LANES];
        self.barrier = tick;
    }

    /// Returns the lanes that run next, which are those that are least far, their instruction, and
    /// the instruction of the next ones, where they may meet. Lanes that left a loop are further
    /// than those in it, so they wait for them.
    pub fn next_group(&self) -> Option<(u32, u32, u32)> {
        let first = lanes(self.running).map(|lane| self.at[lane]).min()?;
        let (mut group, mut next) = (0, u32::MAX);
        for lane in lanes(self.running) {
            match self.at[lane] {
                at if at == first => group |= 1 << lane,
                at => next = next.min(at),
            }
        }
        Some((group, first, next))
    }

    /// Sets the next instruction of some lanes.
    pub fn put(&mut self, mask: u32, at: u32) {
        lanes(mask).for_each(|lane| self.at[lane] = at);
    }
}
