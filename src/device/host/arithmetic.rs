//! The host's arithmetic without a device around it.

use super::backend::Host;
use super::launch;
use crate::Result;
use crate::device::backend::Backend;
use crate::device::job::Job;
use crate::device::launch::{Grid, Kernel, Level};
use crate::device::precision::{Precision, Types};

/// The host's arithmetic on bare addresses: what a stand-in for another device computes with.
pub struct Arithmetic(Host);

impl Arithmetic {
    /// Products and convolutions take single-precision operands as `precision` says.
    pub fn new(threads: usize, precision: Precision) -> Result<Arithmetic> {
        Host::new(threads, precision, None).map(Arithmetic)
    }

    /// Instruction set of the kernels that it takes.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// Runs a kernel. `words`: arguments as [`Arg::word`](crate::device::Arg::word) gives them.
    ///
    /// # Safety
    /// The words are those of the kernel's signature; pointers among them have all behind them that
    /// the kernel touches.
    pub unsafe fn launch(
        &self,
        kernel: &'static Kernel,
        types: Types,
        grid: Grid,
        words: &[u64],
    ) -> Result<()> {
        launch::launch(&self.0.workers, self.0.level, kernel, types, grid, words)
    }

    /// # Safety
    /// Its matrices or tensors lie in memory, what is written apart from what is read.
    pub unsafe fn compute(&self, job: &Job) -> Result<()> {
        self.0.compute(job, 0)
    }
}
