//! The seam between the `cuda` device and whatever drives a GPU: all that touches CUDA's libraries
//! lies behind this trait, and a stand-in on host memory can take its place in tests.
//!
//! Streams run what they are given in order; only [`Driver::wait`], [`Driver::synchronize`] and
//! what gives memory out or takes it back may hold up the host. Addresses are the device's unless
//! they are said to be the host's, whose memory is pinned.

use std::path::PathBuf;

use crate::Result;
use crate::device::job::Job;
use crate::device::launch::{Grid, Kernel};
use crate::device::precision::Types;

/// A queue of work that runs in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub u64);

/// A place in a stream's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub u64);

/// Work recorded to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph(pub u64);

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub free: usize,
    pub total: usize,
}

/// A kernel's launch.
#[derive(Clone, Debug)]
pub struct Launch {
    pub kernel: &'static Kernel,
    pub types: Types,
    pub grid: Grid,
    pub arguments: Vec<Argument>,
}

/// An argument as the kernel takes it.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Its bytes, the lowest first; a narrower parameter takes the low ones.
    pub word: u64,
    /// Of a pointer: how many bytes lie behind it, and whether the kernel writes them.
    pub bytes: Option<usize>,
    pub written: bool,
}

/// A way of doing a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The same in every process.
    pub name: String,
    /// Bytes that it needs beside the tensors.
    pub workspace: usize,
}

/// What the device needs of a GPU's driver and libraries.
pub trait Driver {
    /// One line about the GPU and all that times depend on, for logs.
    fn describe(&self) -> String;
    /// Where to keep what was found out about the GPU; None: nowhere.
    fn kept(&self) -> Option<PathBuf> {
        None
    }
    fn memory(&self) -> Result<Memory>;
    /// How many there are to be kept busy. None: sums are cut into parts as the host cuts them, so that
    /// they have its bits.
    fn multiprocessors(&self) -> Option<usize>;

    fn allocate(&self, bytes: usize) -> Result<u64>;
    fn free(&self, address: u64) -> Result<()>;
    /// Pinned memory of the host.
    fn allocate_host(&self, bytes: usize) -> Result<u64>;
    fn free_host(&self, address: u64) -> Result<()>;
    /// Writes pinned memory at once; no copy under way may still read it.
    fn write_host(&self, to: u64, data: &[u8]) -> Result<()>;
    /// Reads pinned memory at once; every copy that writes it must have been waited for.
    fn read_host(&self, from: u64, data: &mut [u8]) -> Result<()>;

    /// The stream of all work.
    fn stream(&self) -> Result<Stream>;
    /// Another one, beside it.
    fn side_stream(&self) -> Result<Stream>;
    fn copy_in(&self, stream: Stream, from_host: u64, to: u64, bytes: usize) -> Result<()>;
    fn copy_out(&self, stream: Stream, from: u64, to_host: u64, bytes: usize) -> Result<()>;
    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<()>;
    fn zero(&self, stream: Stream, address: u64, bytes: usize) -> Result<()>;
    fn launch(&self, stream: Stream, launch: &Launch) -> Result<()>;
    /// Whether operands of products are rounded to fewer digits than their sums have.
    fn rounds_operands(&self) -> bool;
    /// The ways in which it does a job of this shape, its favourite first. None where no library does
    /// it: a bias or row sums are then not the product's.
    fn ways(&self, job: &Job) -> Result<Vec<Way>>;
    /// By the way of that place among them, with its workspace.
    fn compute(&self, stream: Stream, job: &Job, way: usize, workspace: u64) -> Result<()>;

    fn event(&self) -> Result<Event>;
    /// Moves the event to the stream's end.
    fn record(&self, stream: Stream, event: Event) -> Result<()>;
    /// Holds what the stream is given from here on until the event, where it is now, has passed.
    fn hold(&self, stream: Stream, event: Event) -> Result<()>;
    /// Whether its stream has passed the event.
    fn passed(&self, event: Event) -> Result<bool>;
    /// Holds the host until the stream has passed the event.
    fn wait(&self, event: Event) -> Result<()>;
    /// Seconds between two events that were waited for.
    fn elapsed(&self, from: Event, to: Event) -> Result<f64>;
    /// Holds the host until the stream is empty.
    fn synchronize(&self, stream: Stream) -> Result<()>;

    /// Whether the stream of all work can be recorded.
    fn records(&self) -> bool {
        true
    }
    /// What the stream is given from here on is recorded instead of run.
    fn begin_capture(&self, stream: Stream) -> Result<()>;
    fn end_capture(&self, stream: Stream) -> Result<Graph>;
    fn replay(&self, stream: Stream, graph: Graph) -> Result<()>;
    /// No replay is asked for any more; those under way end well.
    fn discard(&self, graph: Graph);

    /// Bytes to leave free behind every tensor.
    fn padding(&self) -> usize {
        0
    }
    /// Tells that a tensor now lies in memory of [`allocate`](Driver::allocate), or no longer does.
    fn lend(&self, _address: u64, _bytes: usize) -> Result<()> {
        Ok(())
    }
    fn take_back(&self, _address: u64, _bytes: usize) {}
}
