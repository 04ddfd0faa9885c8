//! The device handle: how it is created and queried. All other operations live in sibling files,
//! each with its own `impl Device` block.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::c_void;
use std::rc::Rc;

use super::backend::Backend;
use super::cuda::{self, Cache, Cuda, Driver, Nvidia};
use super::dry::Dry;
use super::group::Group;
use super::host::Host;
use super::launch::Launcher;
use super::nvtx;
use super::pools::Pools;
use super::precision::{Precision, Types};
use super::profile::Recorded;
use super::view::{DeviceId, TensorView};
use crate::dtype::DType;
use crate::{Error, Result};

/// A device and its memory. Clones refer to the same device.
#[derive(Clone)]
pub struct Device(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub backend: Box<dyn Backend>,
    pub pools: RefCell<Pools>,
    /// Number of live, enabled graph caches and of works prepared for the embedding program's
    /// graphs. While it is nonzero, step memory comes from the graph-private pool.
    pub graph_caches: Cell<usize>,
    pub types: Types,
    /// Calls recorded by the active profile, if any.
    pub profile: RefCell<Option<Recorded>>,
    /// The innermost scope. It is the allocation tag of new tensors, and calls are attributed to
    /// it.
    pub tag: Cell<&'static str>,
    /// The layer to which calls are attributed, and whether they belong to its backward.
    pub layer: RefCell<(Rc<str>, bool)>,
    /// The processes that this one trains together with.
    pub group: OnceCell<Group>,
}

impl Device {
    /// Creates a single-precision CPU device with `threads` worker threads; 0 means one per core.
    pub fn host(threads: usize) -> Result<Device> {
        Self::host_in(threads, Precision::F32)
    }

    /// Like [`host`](Self::host), but operands are rounded as a GPU rounds them at `precision`,
    /// which is slower than single precision.
    pub fn host_in(threads: usize, precision: Precision) -> Result<Device> {
        let host = Host::new(threads, precision, None)?;
        Ok(Self::with_backend(Box::new(host), precision.types()))
    }

    /// Creates a double-precision CPU device with one thread, the reference for finite-difference
    /// tests.
    pub fn host_f64() -> Result<Device> {
        Ok(Self::with_backend(Box::new(Host::new(1, Precision::F32, None)?), Types::F64))
    }

    /// Creates a CPU device whose kernels run through `launcher`; matmuls and convolutions stay on
    /// the host.
    pub fn host_launching(types: Types, launcher: Box<dyn Launcher>) -> Result<Device> {
        let host = Host::new(1, Precision::F32, Some(launcher))?;
        Ok(Self::with_backend(Box::new(host), types))
    }

    /// Creates a device that computes nothing and holds no memory. It shows what a step would
    /// allocate and launch before any step runs, on an H100 or H200.
    pub fn dry(precision: Precision) -> Device {
        Self::dry_on(precision, 132)
    }

    /// Like [`dry`](Self::dry), for a GPU with this number of multiprocessors.
    pub fn dry_on(precision: Precision, multiprocessors: usize) -> Device {
        Self::with_backend(Box::new(Dry::new(precision, multiprocessors)), precision.types())
    }

    /// Creates a device on the first visible GPU. With `deterministic`, results are bit-identical
    /// from run to run, at the cost of the libraries' fastest algorithms.
    ///
    /// # Errors
    /// The error names the library that is missing or too old.
    pub fn cuda(precision: Precision, deterministic: bool) -> Result<Device> {
        Self::cuda_at(0, precision, deterministic)
    }

    /// Like [`cuda`](Self::cuda), on the visible GPU of this index.
    ///
    /// # Errors
    /// The error names the library that is missing or too old, or says how many GPUs there are.
    pub fn cuda_at(index: usize, precision: Precision, deterministic: bool) -> Result<Device> {
        Self::cuda_caching(index, precision, deterministic, &Cache::Usual)
    }

    /// Like [`cuda_at`](Self::cuda_at), with a place for compiled kernels and autotuning results.
    ///
    /// # Errors
    /// The same as for [`cuda_at`](Self::cuda_at).
    pub fn cuda_caching(
        index: usize,
        precision: Precision,
        deterministic: bool,
        cache: &Cache,
    ) -> Result<Device> {
        let driver = Nvidia::new(index, precision, deterministic, cache)?;
        Self::cuda_through(precision.types(), Box::new(driver))
    }

    /// Creates a device on an existing CUDA context; all work is submitted to its `stream`. Every
    /// call leaves the calling thread's current context as it was.
    ///
    /// # Safety
    /// Both are live handles (`CUcontext`, `CUstream`) and outlive the device and its tensors.
    pub unsafe fn cuda_in(
        context: *mut c_void,
        stream: *mut c_void,
        precision: Precision,
        deterministic: bool,
    ) -> Result<Device> {
        // SAFETY: the caller guarantees the same.
        unsafe { Self::cuda_in_caching(context, stream, precision, deterministic, &Cache::Usual) }
    }

    /// Like [`cuda_in`](Self::cuda_in), with a place for compiled kernels and autotuning results.
    ///
    /// # Safety
    /// The same as for [`cuda_in`](Self::cuda_in).
    pub unsafe fn cuda_in_caching(
        context: *mut c_void,
        stream: *mut c_void,
        precision: Precision,
        deterministic: bool,
        cache: &Cache,
    ) -> Result<Device> {
        // SAFETY: the caller guarantees that both handles are live and outlive the device.
        let driver = unsafe { Nvidia::existing(context, stream, precision, deterministic, cache)? };
        Self::cuda_through(precision.types(), Box::new(driver))
    }

    /// Returns whether there is a GPU.
    ///
    /// # Errors
    /// Fails if there is a GPU that cannot be used.
    pub fn cuda_is_present() -> Result<bool> {
        Ok(Self::cuda_count()? > 0)
    }

    /// Returns the number of visible GPUs, which [`cuda_at`](Self::cuda_at) counts from 0.
    ///
    /// # Errors
    /// Fails if there is a GPU that cannot be used.
    pub fn cuda_count() -> Result<usize> {
        cuda::count()
    }

    /// Creates a device on the GPU that `driver` controls.
    pub fn cuda_through(types: Types, driver: Box<dyn Driver>) -> Result<Device> {
        Ok(Self::with_backend(Box::new(Cuda::new(driver)?), types))
    }

    fn with_backend(backend: Box<dyn Backend>, types: Types) -> Device {
        // An error is ignored here: `nvtx::tool_problem` reports it.
        let _ = nvtx::attach();
        let pools = RefCell::new(Pools::new(backend.padding(), backend.separates_tensors()));
        let (profile, tag, layer) = (RefCell::default(), Cell::new("other"), RefCell::default());
        let (graph_caches, group) = (Cell::new(0), OnceCell::new());
        let inner = Inner { backend, pools, graph_caches, types, profile, tag, layer, group };
        Device(Rc::new(inner))
    }

    /// Returns a one-line description of the device, for logs.
    pub fn describe(&self) -> String {
        self.0.backend.describe()
    }

    /// Returns the compute type, which also stores the residual stream, statistics, logits and
    /// losses.
    pub fn real(&self) -> DType {
        match self.0.types {
            Types::F32 | Types::Bf16 => DType::F32,
            Types::F64 => DType::F64,
        }
    }

    /// Returns the storage type of the operands of matmuls and attention.
    pub fn operand(&self) -> DType {
        match self.0.types {
            Types::Bf16 => DType::Bf16,
            _ => self.real(),
        }
    }

    /// Returns whether matmul operands are rounded, in which case attention may use kernels that
    /// round too.
    pub fn rounds_operands(&self) -> bool {
        self.0.backend.rounds_operands()
    }

    /// Runs work of the host's such that its parallel parts use the device's worker threads, if it
    /// has any.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        let (mut work, mut result) = (Some(work), None);
        self.0.backend.install(&mut || result = work.take().map(|work| work()))?;
        result.ok_or_else(|| Error::device("the worker threads did nothing"))
    }

    pub(super) fn id(&self) -> DeviceId {
        DeviceId::of(Rc::as_ptr(&self.0))
    }

    /// Refuses a tensor in the memory of another device: its address means nothing here.
    pub(crate) fn require_own(&self, op: &'static str, tensor: TensorView) -> Result<()> {
        if tensor.device == self.id() {
            return Ok(());
        }
        let problem = format!("{tensor:?} is in the memory of another device");
        Err(Error::shape(op, problem))
    }

    /// Waits until all submitted work has finished.
    pub fn synchronize(&self) -> Result<()> {
        self.0.backend.synchronize()
    }
}
