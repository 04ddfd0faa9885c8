//! The interface between the `cuda` device and whatever drives a GPU: all calls into CUDA's
//! libraries are behind this trait, and tests can replace them with a stand-in on host memory.
//!
//! Streams run their work in order. Only [`Driver::wait`], [`Driver::synchronize`] and the
//! functions that allocate or free memory may block the host. Addresses are device addresses unless
//! they are called the host's, which are in pinned memory.

use std::path::PathBuf;

use crate::Result;
use crate::device::launch::{Grid, Kernel};
use crate::device::library_op::LibraryOp;
use crate::device::precision::Types;

/// A stream: a queue of work that runs in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub u64);

/// An event: a point in a stream's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub u64);

/// A captured graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph(pub u64);

/// Device memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that can still be allocated.
    pub free: usize,
    /// Bytes on the device.
    pub total: usize,
}

/// A kernel launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Storage and compute types of the build to launch.
    pub types: Types,
    /// The launch configuration.
    pub grid: Grid,
    /// Arguments in the order of the signature.
    pub arguments: Vec<Argument>,
}

/// An argument as the kernel takes it.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// The argument's bytes, lowest first; a narrower parameter takes the low ones.
    pub word: u64,
    /// For a pointer, the size in bytes of its tensor; None for null and for scalars.
    pub bytes: Option<usize>,
    /// Whether the kernel writes to the tensor.
    pub written: bool,
}

/// An algorithm for a library op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// A name that is the same in every process.
    pub name: String,
    /// Workspace in bytes.
    pub workspace: usize,
}

/// A GPU's driver and libraries, as the device uses them.
pub trait Driver {
    /// Returns one line about the GPU and everything that timings depend on, for logs.
    fn describe(&self) -> String;
    /// Returns the folder of the autotune cache; None for no cache.
    fn kept(&self) -> Option<PathBuf> {
        None
    }
    /// Returns the free and total device memory.
    fn memory(&self) -> Result<Memory>;
    /// Returns the number of multiprocessors. With None, sums are split as on the host, so that
    /// they are bit-identical to the host's.
    fn multiprocessors(&self) -> Option<usize>;

    /// Returns the size of the L2 cache in bytes; None if that is unknown.
    fn last_cache(&self) -> Option<usize> {
        None
    }

    /// Allocates device memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if too little is free, and only then.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    /// Frees device memory.
    fn free(&self, address: u64) -> Result<()>;
    /// Allocates pinned host memory.
    fn allocate_host(&self, bytes: usize) -> Result<u64>;
    /// Frees pinned host memory.
    fn free_host(&self, address: u64) -> Result<()>;
    /// Writes to pinned memory immediately; no copy in progress may still read it.
    fn write_host(&self, to: u64, data: &[u8]) -> Result<()>;
    /// Reads from pinned memory immediately; every copy that writes it must have been waited for.
    fn read_host(&self, from: u64, data: &mut [u8]) -> Result<()>;

    /// Returns the main stream.
    fn stream(&self) -> Result<Stream>;
    /// Creates another stream that runs concurrently with the main one.
    fn side_stream(&self) -> Result<Stream>;
    /// Copies from pinned host memory to the device.
    fn copy_in(&self, stream: Stream, from_host: u64, to: u64, bytes: usize) -> Result<()>;
    /// Copies from the device to pinned host memory.
    fn copy_out(&self, stream: Stream, from: u64, to_host: u64, bytes: usize) -> Result<()>;
    /// Copies within device memory.
    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<()>;
    /// Sets device memory to 0.
    fn zero(&self, stream: Stream, address: u64, bytes: usize) -> Result<()>;
    /// Launches a kernel.
    fn launch(&self, stream: Stream, launch: &Launch) -> Result<()>;
    /// Returns whether matmul operands are rounded to fewer bits than their sums have.
    fn rounds_operands(&self) -> bool;
    /// Returns the algorithms for an op of this shape, the library's first choice first. The list
    /// is empty if no library supports the op, such as a matmul with an unsupported bias or row
    /// sums.
    fn algorithms(&self, op: &LibraryOp) -> Result<Vec<Algorithm>>;
    /// Runs an op with the algorithm at index `algorithm` of that list, and its workspace.
    fn compute(
        &self,
        stream: Stream,
        op: &LibraryOp,
        algorithm: usize,
        workspace: u64,
    ) -> Result<()>;

    /// Creates an event.
    fn event(&self) -> Result<Event>;
    /// Records the event at the stream's end.
    fn record(&self, stream: Stream, event: Event) -> Result<()>;
    /// Makes work submitted to the stream from here on wait for the event as recorded now.
    fn hold(&self, stream: Stream, event: Event) -> Result<()>;
    /// Returns whether the event has completed.
    fn passed(&self, event: Event) -> Result<bool>;
    /// Blocks the host until the event has completed.
    fn wait(&self, event: Event) -> Result<()>;
    /// Returns the seconds between two events that were waited for.
    fn elapsed(&self, from: Event, to: Event) -> Result<f64>;
    /// Blocks the host until the stream has finished its work.
    fn synchronize(&self, stream: Stream) -> Result<()>;

    /// Returns whether the main stream can be captured.
    fn records(&self) -> bool {
        true
    }
    /// Returns whether a capture of the stream is in progress, even one that the embedding program
    /// has begun.
    fn is_captured(&self, stream: Stream) -> Result<bool>;
    /// Starts a capture: work submitted to the stream from here on is recorded instead of run.
    fn begin_capture(&self, stream: Stream) -> Result<()>;
    /// Ends the capture and returns its graph.
    fn end_capture(&self, stream: Stream) -> Result<Graph>;
    /// Launches a captured graph.
    fn replay(&self, stream: Stream, graph: Graph) -> Result<()>;
    /// Destroys a graph; replays in progress still finish.
    fn discard(&self, graph: Graph);

    /// Returns the number of bytes to leave free after every tensor.
    fn padding(&self) -> usize {
        0
    }
    /// Called when a tensor is allocated within memory from [`allocate`](Driver::allocate).
    fn on_alloc(&self, _address: u64, _bytes: usize) -> Result<()> {
        Ok(())
    }
    /// Called when such a tensor is freed.
    fn on_free(&self, _address: u64, _bytes: usize) {}
}
