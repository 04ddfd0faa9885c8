//! The interface that every device backend implements.

use std::path::Path;

use super::launch::{Arg, Grid, Kernel};
use super::library_op::LibraryOp;
use super::precision::Types;
use crate::{Error, Result};

/// The interface between the runtime and a device. Addresses come from
/// [`reserve`](Backend::reserve) or, as bare addresses, from the embedding program.
pub(crate) trait Backend {
    fn describe(&self) -> String;
    /// Returns whether the device computes anything. Otherwise there are no numbers to be read.
    fn computes(&self) -> bool {
        true
    }
    /// Reserves memory that lives as long as the device, or until it is released.
    fn reserve(&self, bytes: usize) -> Result<u64>;
    /// Returns whether memory can be released now.
    fn can_release(&self) -> bool {
        false
    }
    /// Releases memory from [`reserve`](Backend::reserve) that no tensor occupies.
    fn release(&self, _address: u64) -> Result<()> {
        Ok(())
    }
    /// Returns the preferred size in bytes of the next segment, after `reserved` bytes.
    fn segment(&self, reserved: usize) -> usize;
    /// Returns the bytes of memory that the device could give to tensors; None if that is unknown.
    fn total_memory(&self) -> Result<Option<usize>> {
        Ok(None)
    }
    /// Returns the bytes that all tensors together could take now; None if that only shows when they
    /// are allocated.
    fn room(&self) -> Option<usize> {
        None
    }
    /// Returns whether each tensor gets a segment of exactly its own size, for tools that check
    /// accesses.
    fn separates_tensors(&self) -> bool {
        false
    }
    fn zero(&self, address: u64, bytes: usize) -> Result<()>;
    fn copy_in(&self, address: u64, data: &[u8]) -> Result<()>;
    /// Copies to the host, after waiting for all work submitted before.
    fn copy_out(&self, address: u64, data: &mut [u8]) -> Result<()>;
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;
    fn launch(&self, kernel: &'static Kernel, types: Types, grid: Grid, args: &[Arg])
    -> Result<()>;
    /// Compiles the source file `text` with another version of a kernel, whose signature was checked.
    fn compile_kernel(
        &self,
        _kernel: &'static Kernel,
        _types: Types,
        _file: &Path,
        _text: String,
    ) -> Result<&'static Kernel> {
        Err(Error::device("this device cannot compile kernels"))
    }
    /// Returns the size of the last cache before memory, in bytes; None if that is unknown.
    fn last_cache(&self) -> Option<usize> {
        None
    }
    /// Returns whether matmul operands are rounded to fewer bits than their sums have.
    fn rounds_operands(&self) -> bool {
        false
    }
    /// Returns the workspace of a library op in bytes. None means that the device does not support
    /// the op and the caller must compute part of it in another way.
    fn workspace(&self, _job: &LibraryOp) -> Result<Option<usize>> {
        Ok(Some(0))
    }
    fn compute(&self, op: &LibraryOp, workspace: u64) -> Result<()>;
    /// Returns the index of the fastest of several ways to compute the same as `op`: timed once for
    /// each shape, where the result can be kept. Otherwise it is the first.
    fn fastest(&self, _op: &LibraryOp, _ways: &[Way]) -> Result<usize> {
        Ok(0)
    }
    fn synchronize(&self) -> Result<()>;
    /// Runs work of the host's with the device's worker threads, if it has any.
    fn install(&self, work: &mut (dyn FnMut() + Send)) -> Result<()> {
        work();
        Ok(())
    }
    /// Records a timing mark after all work submitted so far.
    fn mark(&self) -> Result<u64>;
    /// Returns when the device passed a mark, in seconds on its own clock. All work before the mark
    /// must have finished.
    fn seconds(&self, mark: u64) -> Result<f64>;
    /// Recycles all marks; they must not be queried afterwards.
    fn forget_marks(&self) {}
    /// Returns the number of blocks that fill the device with elementwise work on `n` elements.
    fn blocks_for(&self, n: usize) -> usize;
    /// Returns the number of blocks that fill the device with `rows` rows, each costing about as
    /// much as `width` elements.
    fn blocks_of_rows(&self, rows: usize, width: usize) -> usize {
        self.blocks_for(rows * width.max(1)).min(rows)
    }
    /// Returns the number of blocks whose thread groups (kernels/group.cuh) fill the device with
    /// `rows` rows, each costing about as much as `width` elements.
    fn blocks_of_groups(&self, rows: usize, width: usize) -> usize {
        self.blocks_of_rows(rows, width)
    }
    /// Returns the number of blocks into which thread groups split a sum over rows: enough to fill
    /// the device, few enough to be cheap to combine.
    fn parts_of_groups(&self, rows: usize) -> usize {
        host_parts_of_groups(rows)
    }
    /// Returns the graph recorder, or None if the device cannot capture graphs. On the host, work
    /// has finished when the call returns, so there is nothing to capture.
    fn graph_capture(&self) -> Option<&dyn GraphCapture> {
        None
    }
    /// Returns the asynchronous transfers, or None if every transfer has finished when its call
    /// returns.
    fn transfers(&self) -> Option<&dyn Transfers> {
        None
    }
    /// Returns the number of bytes to leave free after every tensor.
    fn padding(&self) -> usize {
        0
    }
    /// Called when a tensor is allocated at an address ([`on_free`](Backend::take_back): when it
    /// is freed). An error takes the allocation back.
    fn on_alloc(&self, _address: u64, _bytes: usize) -> Result<()> {
        Ok(())
    }
    fn on_free(&self, _address: u64, _bytes: usize) {}
}

/// One of several ways to compute the same: a name that is the same in every process, and a trial
/// run, which must leave the op's own output as it is or overwrite it.
pub(crate) struct Way<'a> {
    pub name: &'static str,
    pub run: &'a dyn Fn() -> Result<()>,
}

/// Returns the number of parts into which the host splits a sum over rows.
pub(crate) fn host_parts_of_groups(rows: usize) -> usize {
    rows.div_ceil(64).min(128)
}

/// An event in the order of submitted work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventId(pub u64);

/// Asynchronous transfers, which block neither the host nor the work in progress.
pub(crate) trait Transfers {
    /// Records an event after all work submitted so far, reusing `mark` if there is one.
    fn mark(&self, mark: Option<EventId>) -> Result<EventId>;
    /// Uploads bytes to their addresses once the device has passed `after`. Work submitted later
    /// sees the new contents.
    fn send(&self, after: EventId, data: &[(u64, &[u8])]) -> Result<()>;
    /// Returns a readback slot of at least `bytes`, which is reserved until
    /// [`forget`](Transfers::forget) is called.
    fn place(&self, bytes: usize) -> Result<usize>;
    /// Starts a download into a readback slot. It takes no more memory.
    fn fetch(&self, from: u64, bytes: usize, place: usize) -> Result<()>;
    /// Returns whether the download into a readback slot has finished.
    fn is_there(&self, place: usize) -> Result<bool>;
    /// Waits for the download into a readback slot and copies it to `data`.
    fn wait(&self, place: usize, data: &mut [u8]) -> Result<()>;
    /// Releases a readback slot.
    fn forget(&self, place: usize);
}

/// A captured graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapturedGraph(pub u64);

/// Captures work into graphs and replays them, at the addresses used during capture.
pub(crate) trait GraphCapture {
    /// Starts a capture: work submitted from here on is recorded instead of run. Until it ends,
    /// nothing may wait for the device or upload from the host.
    fn begin(&self) -> Result<()>;
    fn end(&self) -> Result<CapturedGraph>;
    fn replay(&self, graph: CapturedGraph) -> Result<()>;
    fn discard(&self, graph: CapturedGraph);
}
