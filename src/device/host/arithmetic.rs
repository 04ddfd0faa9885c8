//! The CPU backend's arithmetic, without a device around it.

use super::backend::Host;
use super::launch;
use crate::Result;
use crate::device::backend::Backend;
use crate::device::launch::{Grid, Kernel, Level};
use crate::device::library_op::LibraryOp;
use crate::device::precision::{Precision, Types};

/// CPU arithmetic on bare addresses, with which a stand-in for another device computes.
pub struct Arithmetic(Host);

impl Arithmetic {
    /// Creates it with `threads` threads. Matmuls and convolutions round single-precision operands
    /// to `precision`.
    pub fn new(threads: usize, precision: Precision) -> Result<Arithmetic> {
        Host::new(threads, precision, None).map(Arithmetic)
    }

    /// Returns the instruction set of the kernels that it runs.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// Runs a kernel. `words` are the arguments as returned by
    /// [`Arg::word`](crate::device::Arg::word).
    ///
    /// # Safety
    /// The words match the kernel's signature, and pointers among them are valid for all that the
    /// kernel accesses.
    pub unsafe fn launch(
        &self,
        kernel: &'static Kernel,
        types: Types,
        grid: Grid,
        words: &[u64],
    ) -> Result<()> {
        launch::launch(&self.0.workers, self.0.level, kernel, types, grid, words)
    }

    /// Runs a library op.
    ///
    /// # Safety
    /// The op's matrices or tensors are in host memory, and what it writes does not overlap what it
    /// reads.
    pub unsafe fn compute(&self, op: &LibraryOp) -> Result<()> {
        self.0.compute(op, 0)
    }
}
