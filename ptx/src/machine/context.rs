//! What a block's instructions act on besides the registers of their warp.

use crate::fault::Problem;
use crate::float::Approximation;
use crate::memory::{Memory, Shared};
use crate::program::Program;
use crate::shadow::Now;
use crate::statistics::Statistics;

/// How to execute a launch.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What the special function unit returns.
    pub approximation: Approximation,
    /// Instructions of a block's warps after which it is assumed not to terminate.
    pub patience: u64,
    /// Executes only one of so many blocks, for counts of large launches, whose results it leaves
    /// incomplete. The statistics are those of the blocks that were executed.
    pub one_block_of: u32,
    /// Leaves the first block out of the statistics, if others follow. What it loads is in the cache
    /// for them, as a multiprocessor's later blocks find what its earlier ones loaded.
    pub warm_up: bool,
}

impl Default for Options {
    fn default() -> Options {
        let approximation = Approximation::Nearest;
        Options { approximation, patience: 1 << 26, one_block_of: 1, warm_up: false }
    }
}

/// A rule that a lane broke.
pub struct Broken {
    pub lane: u32,
    pub problem: Problem,
}

pub type Result<T> = std::result::Result<T, Broken>;

/// Attributes a problem to a lane.
pub fn by_lane<T>(lane: usize, result: std::result::Result<T, Problem>) -> Result<T> {
    result.map_err(|problem| Broken { lane: lane as u32, problem })
}

/// The block that is being executed.
pub struct Context<'a> {
    pub program: &'a Program,
    pub options: Options,
    pub memory: &'a mut Memory,
    pub shared: Shared,
    /// The launch's parameters.
    pub parameters: &'a [u8],
    pub statistics: Statistics,
    pub tick: u32,
    /// Ticks at which the block began, and of its last barrier.
    pub begin: u32,
    pub barrier: u32,
    /// Instructions that the block may still execute.
    pub patience: u64,
}

impl Context<'_> {
    /// Returns what orders an access of a lane after earlier ones.
    pub fn now(&self, warp: u32, warp_barrier: u32, lane: usize) -> Now {
        Now {
            tick: self.tick,
            begin: self.begin,
            barrier: self.barrier,
            warp_barrier,
            thread: (warp * crate::lanes::LANES as u32 + lane as u32) as u16,
        }
    }
}
