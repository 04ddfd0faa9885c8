//! A device that computes nothing: it hands out addresses without memory behind them, so that a
//! step's calls, bytes, FLOPs and peak memory can be reported at once, even for networks too large
//! for the machine.

use std::cell::Cell;

use super::backend::Backend;
use super::cuda::blocks;
use super::launch::{Arg, Grid, Kernel};
use super::library_op::LibraryOp;
use super::precision::{Precision, Types};
use crate::{Error, Result};

/// Address space reserved at once, more than a step can need.
const CHUNK: usize = 1 << 44;

/// A backend without memory: what a step fetches of its own results is zero.
pub(super) struct Dry {
    precision: Precision,
    /// Work is split into blocks as the `cuda` device splits it on so many.
    multiprocessors: usize,
    reserved: Cell<u64>,
}

impl Dry {
    pub fn new(precision: Precision, multiprocessors: usize) -> Dry {
        Dry { precision, multiprocessors, reserved: Cell::new(0) }
    }
}

impl Backend for Dry {
    fn describe(&self) -> String {
        format!("dry ({:?}): nothing is computed", self.precision)
    }

    fn computes(&self) -> bool {
        false
    }

    fn rounds_operands(&self) -> bool {
        self.precision != Precision::F32
    }

    fn reserve(&self, bytes: usize) -> Result<u64> {
        let end = |from: u64| from.checked_add(CHUNK as u64)?.checked_add(bytes as u64);
        let end = end(self.reserved.get())
            .ok_or_else(|| Error::OutOfMemory("the address space is used up".into()))?;
        self.reserved.set(end);
        Ok(end - bytes as u64)
    }

    fn segment(&self, _: usize) -> usize {
        CHUNK
    }

    fn zero(&self, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn copy_in(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn copy_out(&self, _: u64, data: &mut [u8]) -> Result<()> {
        data.fill(0);
        Ok(())
    }

    fn copy(&self, _: u64, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn launch(&self, _: &'static Kernel, _: Types, _: Grid, _: &[Arg]) -> Result<()> {
        Ok(())
    }

    fn compute(&self, _: &LibraryOp, _: u64) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn blocks_for(&self, n: usize) -> usize {
        blocks::of_elements(n)
    }

    fn blocks_of_groups(&self, rows: usize, _: usize) -> usize {
        blocks::of_groups(rows, self.multiprocessors)
    }

    fn parts_of_groups(&self, rows: usize) -> usize {
        blocks::parts_of_groups(rows, self.multiprocessors)
    }

    fn mark(&self) -> Result<u64> {
        Ok(0)
    }

    fn seconds(&self, _: u64) -> Result<f64> {
        Ok(0.0)
    }
}
