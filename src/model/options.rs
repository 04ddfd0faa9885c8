//! How a model is opened.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use crate::checkpoint::weights::Network;
use crate::device::Precision;
use crate::device::cuda::Cache;

/// The kind of device that a model computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// On the first GPU if there is one, and otherwise on the CPU.
    #[default]
    Auto,
    /// On the CPU.
    Host,
    /// On the visible GPU of this index.
    Cuda(usize),
}

/// Receives messages for the user, one or a few lines long. They may come from any thread.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// How a model is opened. The default suits most programs: change what should differ.
///
/// ```
/// let mut options = udass_raw::model::Options::default();
/// options.threads = 2;
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Where to compute.
    pub device: DeviceKind,
    /// The precision of matmuls, convolutions and attention. None: that of the file's configuration.
    pub precision: Option<Precision>,
    /// Threads on the CPU; 0 means one per core. They end with the model.
    pub threads: usize,
    /// The most bytes that tensors may take on the device, which are then reserved at once. None:
    /// memory is reserved as it is needed.
    pub memory_limit: Option<usize>,
    /// Where a GPU's compiled kernels and autotuning results are kept.
    pub cache: Cache,
    /// Which of the networks in a training checkpoint to use. None: the student.
    pub network: Option<Network>,
    /// Side and step of the sliding windows in pixels; a side of 0 stands for the whole image at
    /// once. None: those of the file's configuration.
    pub windows: Option<[usize; 2]>,
    /// Windows per forward pass. None: that of the file's configuration.
    pub batch: Option<usize>,
    /// Receives messages.
    pub log: Option<Log>,
    pub(super) context: Option<Context>,
}

/// A CUDA context and a stream of the program's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub context: *mut c_void,
    pub stream: *mut c_void,
}

// SAFETY: the driver's handles are not bound to a thread. Whoever gave them promised that they
// outlive the model (`Options::set_cuda_context`), from whichever thread it is used.
unsafe impl Send for Context {}
// SAFETY: as above; a shared reference only copies the handles.
unsafe impl Sync for Context {}

impl Options {
    /// Computes in a CUDA context of the program's; all work is submitted to `stream`, and
    /// [`device`](Self::device) does not matter. Every call leaves the calling thread's current
    /// context as it was.
    ///
    /// # Safety
    /// Both are live handles (`CUcontext`, `CUstream`) and outlive every model that is opened with
    /// these options.
    pub unsafe fn set_cuda_context(&mut self, context: *mut c_void, stream: *mut c_void) {
        self.context = Some(Context { context, stream });
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("device", &self.device)
            .field("precision", &self.precision)
            .field("threads", &self.threads)
            .field("memory_limit", &self.memory_limit)
            .field("cache", &self.cache)
            .field("network", &self.network)
            .field("windows", &self.windows)
            .field("batch", &self.batch)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}
