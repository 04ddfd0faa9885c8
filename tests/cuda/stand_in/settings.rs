//! How a stand-in is set up, and what a test asks it afterwards.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use udass_raw::device::cuda::Stream;
use udass_raw::device::{Arithmetic, Precision};

use super::memory::Memories;
use super::{Counts, StandIn, State};

/// Total memory of the device unless a test sets another.
const TOTAL: usize = 4 << 30;

impl StandIn {
    pub fn new() -> StandIn {
        Self::with_memory(TOTAL)
    }

    pub fn with_memory(total: usize) -> StandIn {
        Self::with(total, Precision::F32)
    }

    pub fn with_precision(precision: Precision) -> StandIn {
        Self::with(TOTAL, precision)
    }

    fn with(total: usize, precision: Precision) -> StandIn {
        StandIn(Rc::new(RefCell::new(State {
            arithmetic: Arithmetic::new(1, precision).unwrap(),
            precision,
            adds_bias: true,
            sums_rows: false,
            total,
            memories: Memories::default(),
            streams: Vec::new(),
            events: Vec::new(),
            graphs: Vec::new(),
            capture: None,
            kept: Default::default(),
            kernels: Default::default(),
            algorithms: vec![1],
            epilogue: 0,
            failing: Default::default(),
            faulty: false,
            asked: 0,
            left: None,
            ran: Default::default(),
            multiprocessors: None,
            folder: None,
            counts: Counts::default(),
        })))
    }

    /// Offers candidate algorithms for library ops that take the given ticks each, and caches the
    /// fastest in a folder.
    pub fn with_ways(self, ticks: &[u64], folder: Option<&Path>) -> StandIn {
        let mut state = self.0.borrow_mut();
        state.algorithms = ticks.to_vec();
        state.folder = folder.map(Path::to_path_buf);
        drop(state);
        self
    }

    /// Sets whether matmuls add a bias and sum rows in their epilogues.
    pub fn along_the_way(self, adds_bias: bool, sums_rows: bool) -> StandIn {
        let mut state = self.0.borrow_mut();
        (state.adds_bias, state.sums_rows) = (adds_bias, sums_rows);
        drop(state);
        self
    }

    /// Sets how many ticks longer a matmul takes with an epilogue.
    pub fn with_slow_epilogues(self, ticks: u64) -> StandIn {
        self.0.borrow_mut().epilogue = ticks;
        self
    }

    /// Lets candidates fail.
    pub fn with_failing_ways(self, ways: &[usize]) -> StandIn {
        self.0.borrow_mut().failing = ways.iter().copied().collect();
        self
    }

    /// Lets everything that allocates or waits fail from here on, as after the fault of a kernel.
    pub fn break_down(&self) {
        self.0.borrow_mut().faulty = true;
    }

    /// Lets everything that takes memory fail after so many more tensors, streams, events and blocks
    /// of memory; None: nothing fails.
    pub fn fail_after(&self, more: Option<u64>) {
        self.0.borrow_mut().left = more;
    }

    /// Returns how much was asked for that takes memory, by number.
    pub fn asked(&self) -> u64 {
        self.0.borrow().asked
    }

    /// Returns the numbers of allocated blocks in device and in pinned memory.
    pub fn blocks(&self) -> [usize; 2] {
        self.0.borrow().memories.blocks()
    }

    /// Returns how often each candidate ran since the previous call.
    pub fn ways_that_ran(&self) -> BTreeMap<usize, u64> {
        std::mem::take(&mut self.0.borrow_mut().ran)
    }

    pub fn counts(&self) -> Counts {
        self.0.borrow().counts
    }

    /// Returns the number of calls that a stream has yet to run.
    pub fn waiting_on(&self, stream: Stream) -> usize {
        self.0.borrow().streams[stream.0 as usize].calls.len()
    }

    pub fn kernels(&self) -> Vec<&'static str> {
        self.0.borrow().kernels.iter().copied().collect()
    }
}
