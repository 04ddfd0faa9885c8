//! What a device must be able to do.

use super::job::Job;
use super::launch::{Arg, Grid, Kernel};
use super::precision::Types;
use crate::Result;

/// The seam between the runtime and a device. Addresses come from [`reserve`](Backend::reserve).
pub(crate) trait Backend {
    fn describe(&self) -> String;
    /// Memory that lives as long as the device.
    fn reserve(&self, bytes: usize) -> Result<u64>;
    /// How much to reserve at once.
    fn chunk(&self) -> usize;
    fn zero(&self, address: u64, bytes: usize) -> Result<()>;
    fn copy_in(&self, address: u64, data: &[u8]) -> Result<()>;
    /// Waits for what was launched before.
    fn copy_out(&self, address: u64, data: &mut [u8]) -> Result<()>;
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;
    fn launch(&self, kernel: &'static Kernel, types: Types, grid: Grid, args: &[Arg])
    -> Result<()>;
    /// Whether operands of products are rounded to fewer digits than their sums have.
    fn rounds_operands(&self) -> bool {
        false
    }
    /// Bytes that a job needs beside its tensors. None: the device does no such job, and its caller
    /// has to do a part of it otherwise.
    fn workspace(&self, _job: &Job) -> Result<Option<usize>> {
        Ok(Some(0))
    }
    fn compute(&self, job: &Job, workspace: u64) -> Result<()>;
    fn synchronize(&self) -> Result<()>;
    /// A moment in the order of work.
    fn mark(&self) -> Result<u64>;
    /// When the device passed a mark, on its own clock; everything before it must have run.
    fn seconds(&self, mark: u64) -> Result<f64>;
    /// Nobody will ask about the marks there are.
    fn forget_marks(&self) {}
    /// Blocks that fill the device with elementwise work of `n` elements.
    fn blocks_for(&self, n: usize) -> usize;
    /// Blocks that fill it with `rows`, each costing about as much as `width` elements.
    fn blocks_of_rows(&self, rows: usize, width: usize) -> usize {
        self.blocks_for(rows * width.max(1)).min(rows)
    }
    /// Blocks whose teams (kernels/team.cuh) fill the device with `rows`, each costing about as much
    /// as `width` elements.
    fn blocks_of_teams(&self, rows: usize, width: usize) -> usize {
        self.blocks_of_rows(rows, width)
    }
    /// Blocks that a sum over rows is cut into, where teams take them: enough to fill the device, few
    /// enough to be cheap to combine.
    fn parts_of_teams(&self, rows: usize) -> usize {
        host_parts_of_teams(rows)
    }
    /// None: work that is asked for has run when the call returns, so there is nothing to record.
    fn recorder(&self) -> Option<&dyn Recorder> {
        None
    }
    /// None: transfers are done when the call returns, as everything is.
    fn transfers(&self) -> Option<&dyn Transfers> {
        None
    }
    /// Bytes to leave free behind every tensor.
    fn padding(&self) -> usize {
        0
    }
    /// Tells that a tensor now lies there, or no longer does.
    fn lend(&self, _address: u64, _bytes: usize) -> Result<()> {
        Ok(())
    }
    fn take_back(&self, _address: u64, _bytes: usize) {}
}

/// As the host cuts sums over rows.
pub(crate) fn host_parts_of_teams(rows: usize) -> usize {
    rows.div_ceil(64).min(128)
}

/// A place in the order of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(pub u64);

/// Transfers that hold up neither the host nor the work under way.
pub(crate) trait Transfers {
    /// Moves a mark, or makes one, behind all that was asked for so far.
    fn mark(&self, mark: Option<Mark>) -> Result<Mark>;
    /// Writes bytes to their addresses when work has passed `after`; work that is asked for later
    /// finds them there.
    fn send(&self, after: Mark, data: &[(u64, &[u8])]) -> Result<()>;
    /// Has bytes brought to the host; they have the place that this returns until it is forgotten.
    fn fetch(&self, from: u64, bytes: usize) -> Result<usize>;
    fn is_there(&self, place: usize) -> Result<bool>;
    /// Waits for what arrives at a place.
    fn wait(&self, place: usize, data: &mut [u8]) -> Result<()>;
    fn forget(&self, place: usize);
}

/// Work that a device has recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recording(pub u64);

/// Records work and runs it again, at the addresses that it saw.
pub(crate) trait Recorder {
    /// What is asked for from here on is recorded instead of run; nothing may wait for the device,
    /// nor come from the host.
    fn begin(&self) -> Result<()>;
    fn end(&self) -> Result<Recording>;
    fn replay(&self, recording: Recording) -> Result<()>;
    fn discard(&self, recording: Recording);
}
