//! The handle of a device: how one is made, and what it says about itself. Everything else that a
//! device does stands in files of its own, each an `impl Device`.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::rc::Rc;

use super::backend::Backend;
use super::cuda::{self, Cuda, Driver, Nvidia};
use super::dry::Dry;
use super::host::Host;
use super::launch::Launcher;
use super::nvtx;
use super::pools::Pools;
use super::precision::{Precision, Types};
use super::profile::Recorded;
use crate::Result;
use crate::dtype::DType;

/// A device and its memory. Clones are the same device.
#[derive(Clone)]
pub struct Device(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub backend: Box<dyn Backend>,
    pub pools: RefCell<Pools>,
    /// How many [`Replays`](super::Replays) there are: while there is one, a step's memory is kept.
    pub replays: Cell<usize>,
    pub types: Types,
    /// The calls of the profile that is being taken, if one is.
    pub profile: RefCell<Option<Recorded>>,
    /// The innermost scope: it is charged for what is allocated and run now.
    pub holder: Cell<&'static str>,
    /// The layer that is charged for what is run now, and whether for its backward.
    pub layer: RefCell<(Rc<str>, bool)>,
}

impl Device {
    /// The CPU, with `threads` worker threads; 0 means one per core. Single precision.
    pub fn host(threads: usize) -> Result<Device> {
        Self::host_in(threads, Precision::F32)
    }

    /// Like [`host`](Self::host), but rounding as a GPU does at that precision. Slower than single.
    pub fn host_in(threads: usize, precision: Precision) -> Result<Device> {
        let host = Host::new(threads, precision, None)?;
        Ok(Self::with_backend(Box::new(host), precision.types()))
    }

    /// The CPU in double precision: the reference of finite-difference tests.
    pub fn host_f64() -> Result<Device> {
        Ok(Self::with_backend(Box::new(Host::new(1, Precision::F32, None)?), Types::F64))
    }

    /// The CPU, whose kernels `launcher` runs; products and convolutions stay with the host.
    pub fn host_launching(types: Types, launcher: Box<dyn Launcher>) -> Result<Device> {
        let host = Host::new(1, Precision::F32, Some(launcher))?;
        Ok(Self::with_backend(Box::new(host), types))
    }

    /// A device that computes nothing and holds no memory: it shows what a step would ask for,
    /// before any runs.
    pub fn dry(precision: Precision) -> Device {
        Self::with_backend(Box::new(Dry::new(precision)), precision.types())
    }

    /// The first GPU that is visible. Errors name the library that is missing or too old.
    /// `deterministic`: the same bits every time, which costs the libraries' fastest algorithms.
    pub fn cuda(precision: Precision, deterministic: bool) -> Result<Device> {
        let driver = Nvidia::new(precision, deterministic)?;
        Self::cuda_through(precision.types(), Box::new(driver))
    }

    /// The GPU of a CUDA context that is there already; all work goes to its `stream`.
    ///
    /// # Safety
    /// Both are live handles (`CUcontext`, `CUstream`) and outlive the device and its tensors.
    pub unsafe fn cuda_in(
        context: *mut c_void,
        stream: *mut c_void,
        precision: Precision,
        deterministic: bool,
    ) -> Result<Device> {
        // SAFETY: the caller's.
        let driver = unsafe { Nvidia::existing(context, stream, precision, deterministic)? };
        Self::cuda_through(precision.types(), Box::new(driver))
    }

    /// Whether there is a GPU; an error where there is one that cannot be used.
    pub fn cuda_is_present() -> Result<bool> {
        cuda::is_present()
    }

    /// The GPU that `driver` drives.
    pub fn cuda_through(types: Types, driver: Box<dyn Driver>) -> Result<Device> {
        Ok(Self::with_backend(Box::new(Cuda::new(driver)?), types))
    }

    fn with_backend(backend: Box<dyn Backend>, types: Types) -> Device {
        // A tool's library that cannot be used is reported by `nvtx::tool_problem`.
        let _ = nvtx::attach();
        let pools = RefCell::new(Pools::with_padding(backend.padding()));
        let (profile, holder, layer) = (RefCell::default(), Cell::new("other"), RefCell::default());
        let replays = Cell::new(0);
        Device(Rc::new(Inner { backend, pools, replays, types, profile, holder, layer }))
    }

    /// One line about the device, for logs.
    pub fn describe(&self) -> String {
        self.0.backend.describe()
    }

    /// Type of everything computed: residual stream, statistics, logits, losses.
    pub fn real(&self) -> DType {
        match self.0.types {
            Types::F32 | Types::Bf16 => DType::F32,
            Types::F64 => DType::F64,
        }
    }

    /// Type of the operands of products and attention.
    pub fn operand(&self) -> DType {
        match self.0.types {
            Types::Bf16 => DType::Bf16,
            _ => self.real(),
        }
    }

    /// Whether operands of products are rounded, so that attention may take the kernels that do.
    pub fn rounds_operands(&self) -> bool {
        self.0.backend.rounds_operands()
    }

    /// Waits until everything launched has run.
    pub fn synchronize(&self) -> Result<()> {
        self.0.backend.synchronize()
    }
}
