//! Devices: memory, launches, products. Nothing above this module knows which one runs.

mod arena;
pub(crate) mod backend;
pub mod cuda;
#[cfg(feature = "cust")]
mod cust;
mod dry;
mod host;
mod launch;
mod nvtx;
mod pools;
pub mod profile;
mod replay;
mod shapes;
mod transfers;

pub use arena::{ALIGNMENT, MemoryReport};
pub use backend::{Convolution, ConvolutionPass, Job, Matrix, Product};
pub use host::Arithmetic;
pub use launch::{
    Arg, Element as ArgElement, Grid, Kernel, Launcher, Level, Solo, SoloBody, Types,
};
pub use replay::Replays;
pub use shapes::{Dim, Parameter, ParameterKind, Shape};
pub use transfers::{Inlet, Readback};

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::tensor::{DType, Element, Tensor};
use crate::{Error, Result};
use backend::{Backend, no_way};
use pools::{Pool, Pools};

/// Launchers generated from the signatures in `kernels/*.cu`: a struct a kernel, whose fields are the
/// kernel's arguments. An `int64_t` is a `usize` here: a size, a number of things or a place.
#[allow(clippy::all)]
pub mod kernels {
    use super::launch::{Arg, Element, Grid, Kernel, Level, Solo, SoloLaunch, Types};
    use super::shapes::{Dim, Parameter, ParameterKind, Shape, size};
    use crate::Result;
    use crate::device::Device;
    use crate::tensor::Tensor;
    use std::ffi::c_void;

    include!(concat!(env!("OUT_DIR"), "/launchers.rs"));
}

/// Constants that kernels and their launches share, by the kernels' files.
pub mod constants {
    include!(concat!(env!("OUT_DIR"), "/constants.rs"));
}

/// What libraries want workspaces to lie at multiples of.
const WORKSPACE_ALIGNMENT: usize = 256;

/// How products and convolutions take their operands. All else is in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    /// Rounded to 10 bits behind the point.
    Tf32,
    /// Kept in memory with 7 bits behind the point, and those of attention too.
    Bf16,
}

impl Precision {
    fn types(self) -> Types {
        match self {
            Precision::F32 | Precision::Tf32 => Types::F32,
            Precision::Bf16 => Types::Bf16,
        }
    }
}

/// A device and its memory. Clones are the same device.
#[derive(Clone)]
pub struct Device(Rc<Inner>);

struct Inner {
    backend: Box<dyn Backend>,
    pools: RefCell<Pools>,
    /// How many there are for whom a step's memory is kept.
    replays: Cell<usize>,
    types: Types,
    /// Set while somebody wants to know where time goes.
    profile: RefCell<Option<profile::Recorder>>,
    /// Who is charged for what is allocated and run now.
    holder: Cell<&'static str>,
    /// The layer that is charged for what is run now, and whether for its backward.
    layer: RefCell<(Rc<str>, bool)>,
}

/// A range of device memory; goes back to the arena when dropped.
pub struct Block {
    device: Rc<Inner>,
    address: u64,
    bytes: usize,
    holder: &'static str,
    /// None: it is somebody else's.
    pool: Option<Pool>,
}

impl Block {
    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(pool) = self.pool else { return };
        self.device.backend.take_back(self.address, self.bytes);
        let mut pools = self.device.pools.borrow_mut();
        pools.give_back(pool, self.address, self.bytes, self.holder);
    }
}

impl Device {
    /// The CPU, with `threads` worker threads; 0 means one per core. Single precision.
    pub fn host(threads: usize) -> Result<Device> {
        Self::host_in(threads, Precision::F32)
    }

    /// As [`host`](Self::host), rounding as a GPU does at that precision. Slower than single.
    pub fn host_in(threads: usize, precision: Precision) -> Result<Device> {
        let host = host::Host::new(threads, precision, None)?;
        Ok(Self::with_backend(Box::new(host), precision.types()))
    }

    /// The CPU in double precision: the reference of finite-difference tests.
    pub fn host_f64() -> Result<Device> {
        Ok(Self::with_backend(Box::new(host::Host::new(1, Precision::F32, None)?), Types::F64))
    }

    /// The CPU, whose kernels `launcher` runs; products and convolutions stay with the host.
    pub fn host_launching(types: Types, launcher: Box<dyn Launcher>) -> Result<Device> {
        let host = host::Host::new(1, Precision::F32, Some(launcher))?;
        Ok(Self::with_backend(Box::new(host), types))
    }

    /// A device that computes nothing and holds no memory: for what a profile tells of a step before
    /// it runs.
    pub fn dry(precision: Precision) -> Device {
        Self::with_backend(Box::new(dry::Dry::new(precision)), precision.types())
    }

    /// The first GPU that is visible. Errors name the library that is missing or too old.
    /// `deterministic`: the same bits every time, which costs the libraries' fastest algorithms.
    pub fn cuda(precision: Precision, deterministic: bool) -> Result<Device> {
        let driver = cuda::Nvidia::new(precision, deterministic)?;
        Self::cuda_through(precision.types(), Box::new(driver))
    }

    /// The GPU of a CUDA context that is there already; all work goes to its `stream`.
    ///
    /// # Safety
    /// Both are live handles (`CUcontext`, `CUstream`) and outlive the device and its tensors.
    pub unsafe fn cuda_in(
        context: *mut std::ffi::c_void,
        stream: *mut std::ffi::c_void,
        precision: Precision,
        deterministic: bool,
    ) -> Result<Device> {
        // SAFETY: the caller's.
        let driver = unsafe { cuda::Nvidia::existing(context, stream, precision, deterministic)? };
        Self::cuda_through(precision.types(), Box::new(driver))
    }

    /// Whether there is a GPU; an error where there is one that cannot be used.
    pub fn cuda_is_present() -> Result<bool> {
        cuda::is_present()
    }

    /// The GPU that `driver` drives.
    pub fn cuda_through(types: Types, driver: Box<dyn cuda::Driver>) -> Result<Device> {
        Ok(Self::with_backend(Box::new(cuda::Cuda::new(driver)?), types))
    }

    fn with_backend(backend: Box<dyn Backend>, types: Types) -> Device {
        // What is wrong with a tool's library is told by who asks `tool_problem`.
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

    /// Memory of unspecified content.
    pub fn alloc(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let bytes = shape.iter().product::<usize>() * dtype.bytes();
        let holder = self.0.holder.get();
        let taken = self.0.pools.borrow_mut().take(bytes, holder);
        let (address, pool) = match taken {
            Some(taken) => taken,
            None => {
                let least = self.0.pools.borrow().missing(bytes);
                let wanted = self.0.backend.chunk().max(least);
                let (chunk, address) = match self.0.backend.reserve(wanted) {
                    Ok(address) => (wanted, address),
                    Err(_) => {
                        let address = self.0.backend.reserve(least);
                        (least, address.map_err(|e| self.out_of_memory(bytes, e))?)
                    }
                };
                let mut pools = self.0.pools.borrow_mut();
                pools.add_chunk(address, chunk);
                pools.take(bytes, holder).ok_or_else(|| Error::device("the arena lost a chunk"))?
            }
        };
        self.0.backend.lend(address, bytes)?;
        let (device, pool) = (self.0.clone(), Some(pool));
        let block = Rc::new(Block { device, address, bytes, holder, pool });
        Ok(Tensor::new(block, 0, shape.into(), dtype))
    }

    /// A tensor over memory of the device that is somebody else's: an image to segment, a batch to
    /// learn from. `address` is a multiple of [`ALIGNMENT`], which what CUDA allocates is.
    ///
    /// # Safety
    /// As many bytes lie there, which outlive the tensor, its clones and what reads them, and which
    /// others touch in the order of the device's stream alone.
    pub unsafe fn tensor_at(&self, address: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
        if address == 0 || !address.is_multiple_of(ALIGNMENT as u64) {
            let problem = format!("{address:#x} is no multiple of {ALIGNMENT}");
            return Err(Error::shape("tensor_at", problem));
        }
        let bytes = shape.iter().product::<usize>() * dtype.bytes();
        let (device, holder) = (self.0.clone(), self.0.holder.get());
        let block = Rc::new(Block { device, address, bytes, holder, pool: None });
        Ok(Tensor::new(block, 0, shape.into(), dtype))
    }

    fn out_of_memory(&self, bytes: usize, cause: Error) -> Error {
        let report = self.memory();
        let held: Vec<String> = (report.peak_holders.iter().take(4))
            .map(|(name, n)| format!("{name} {} MiB", n >> 20))
            .collect();
        Error::OutOfMemory(format!(
            "{cause}; there is no room for {} MiB of {}. {} MiB are in use, at most {} were ({})",
            (bytes >> 20).max(1),
            self.0.holder.get(),
            report.used >> 20,
            report.peak >> 20,
            held.join(", ")
        ))
    }

    /// A tensor of `real` of unspecified content.
    pub fn empty(&self, shape: &[usize]) -> Result<Tensor> {
        self.alloc(shape, self.real())
    }

    pub fn empty_like(&self, like: &Tensor) -> Result<Tensor> {
        self.alloc(like.shape(), like.dtype())
    }

    pub fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let mut tensor = self.alloc(shape, dtype)?;
        self.zero(&mut tensor)?;
        Ok(tensor)
    }

    pub fn zero(&self, tensor: &mut Tensor) -> Result<()> {
        let (address, bytes) = (tensor.address(), tensor.bytes());
        let work = || profile::memory("zero", bytes);
        self.timed(work, || self.0.backend.zero(address, bytes))
    }

    pub fn upload<E: Element>(&self, shape: &[usize], data: &[E]) -> Result<Tensor> {
        let mut tensor = self.alloc(shape, E::DTYPE)?;
        self.write(&mut tensor, data)?;
        Ok(tensor)
    }

    /// Uploads single-precision numbers as `real`.
    pub fn upload_real(&self, shape: &[usize], data: &[f32]) -> Result<Tensor> {
        let mut tensor = self.empty(shape)?;
        self.write_real(&mut tensor, data)?;
        Ok(tensor)
    }

    /// Replaces a `real` tensor's content.
    pub fn write_real(&self, tensor: &mut Tensor, data: &[f32]) -> Result<()> {
        self.write_bytes(tensor, self.real(), &self.as_real(data))
    }

    /// The bytes of numbers as `real` holds them.
    pub fn as_real<'a>(&self, data: &'a [f32]) -> Cow<'a, [u8]> {
        match self.0.types {
            Types::F32 | Types::Bf16 => bytemuck::cast_slice(data).into(),
            Types::F64 => data.iter().flat_map(|&x| f64::from(x).to_ne_bytes()).collect(),
        }
    }

    /// Replaces a tensor's content.
    pub fn write<E: Element>(&self, tensor: &mut Tensor, data: &[E]) -> Result<()> {
        self.write_bytes(tensor, E::DTYPE, bytemuck::cast_slice(data))
    }

    fn write_bytes(&self, tensor: &mut Tensor, dtype: DType, data: &[u8]) -> Result<()> {
        if tensor.dtype() != dtype || tensor.bytes() != data.len() {
            let elements = data.len() / dtype.bytes();
            let problem = format!("{tensor:?} cannot take {elements} elements of {dtype:?}");
            return Err(Error::shape("write", problem));
        }
        let work = || profile::memory("write", tensor.bytes());
        self.timed(work, || self.0.backend.copy_in(tensor.address(), data))
    }

    /// Waits for the device and copies a tensor to the host.
    pub fn read<E: Element>(&self, tensor: &Tensor) -> Result<Vec<E>> {
        if tensor.dtype() != E::DTYPE {
            return Err(Error::shape("read", format!("{tensor:?} read as {:?}", E::DTYPE)));
        }
        let mut data = vec![E::zeroed(); tensor.len()];
        let work = || profile::memory("read", tensor.bytes());
        let bytes = bytemuck::cast_slice_mut(&mut data);
        self.timed(work, || self.0.backend.copy_out(tensor.address(), bytes))?;
        Ok(data)
    }

    /// Reads a `real` tensor or an operand as single precision.
    pub fn read_f32(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        match tensor.dtype() {
            DType::F64 => Ok(self.read::<f64>(tensor)?.into_iter().map(|x| x as f32).collect()),
            DType::Bf16 => Ok(self.read(tensor)?.into_iter().map(half::bf16::to_f32).collect()),
            _ => self.read(tensor),
        }
    }

    /// Copies between tensors of the same type and length.
    pub fn copy(&self, from: &Tensor, to: &mut Tensor) -> Result<()> {
        if from.dtype() != to.dtype() || from.len() != to.len() {
            return Err(Error::shape("copy", format!("{from:?} into {to:?}")));
        }
        let work = || profile::memory("copy", 2 * from.bytes());
        let (source, destination) = (from.address(), to.address());
        self.timed(work, || self.0.backend.copy(source, destination, from.bytes()))
    }

    /// Blocks for a GRID_LOOP over `n` elements.
    pub fn elements(&self, n: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_for(n))
    }

    /// Blocks for a loop over `rows`, each costing about as much as `width` elements.
    pub fn rows(&self, rows: usize, width: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_of_rows(rows, width))
    }

    /// Blocks for a TEAM_ROWS loop over `rows`, each costing about as much as `width` elements.
    pub fn team_rows(&self, rows: usize, width: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_of_teams(rows, width))
    }

    /// Blocks for a TEAM_ROWS loop that sums over `rows`, one part a block: the shape alone decides in
    /// which order a device adds.
    pub fn team_parts(&self, rows: usize) -> Grid {
        Grid::blocks(self.0.backend.parts_of_teams(rows))
    }

    pub(crate) fn launch(&self, kernel: &'static Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        for arg in args {
            if let Arg::Pointer { name, element, tensor: Some(tensor), .. } = arg {
                let wanted = match element {
                    ArgElement::Operand => self.operand(),
                    ArgElement::Real => self.real(),
                    ArgElement::U8 => DType::U8,
                    ArgElement::I32 => DType::I32,
                    ArgElement::I64 => DType::I64,
                    ArgElement::U64 => DType::U64,
                };
                if tensor.dtype() != wanted {
                    let problem = format!("`{name}` must be {wanted:?}, is {tensor:?}");
                    return Err(Error::shape(kernel.name, problem));
                }
            }
        }
        shapes::check(kernel, grid, args)?;
        let work = || profile::launch(kernel, grid, args);
        self.timed(work, || self.0.backend.launch(kernel, self.0.types, grid, args))
    }

    /// `out = a·b`, or `out += a·b` with `accumulate`. The operands are of one type, `out` of theirs
    /// or `real`.
    pub fn product(&self, out: &mut Tensor, a: Matrix, b: Matrix, accumulate: bool) -> Result<()> {
        let product = Product::plain(Matrix::of(out), a, b, accumulate);
        self.multiply(product)?.ok_or_else(|| no_way(&Job::Product(product)))
    }

    /// `out = a·b + bias` in every row, a bias of `out`'s type: as one product where the device has it.
    pub fn product_with_bias(
        &self,
        out: &mut Tensor,
        a: Matrix,
        b: Matrix,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        let Some(bias) = bias else { return self.product(out, a, b, false) };
        if bias.len() != out.channels() || bias.dtype() != out.dtype() {
            return Err(Error::shape("product", format!("a bias {bias:?} for {out:?}")));
        }
        let plain = Product::plain(Matrix::of(out), a, b, false);
        match self.multiply(Product { bias: Some(bias.address()), ..plain })? {
            Some(()) => Ok(()),
            None => {
                self.fill_rows(bias, out)?;
                self.product(out, a, b, true)
            }
        }
    }

    /// Every row becomes `row`, in any type: what is there is copied behind itself, again and again.
    fn fill_rows(&self, row: &Tensor, rows: &mut Tensor) -> Result<()> {
        let (address, bytes) = (rows.address(), rows.bytes());
        self.timed(
            || profile::memory("fill rows", 2 * bytes),
            || {
                let mut there = row.bytes().min(bytes);
                self.0.backend.copy(row.address(), address, there)?;
                while there < bytes {
                    let more = there.min(bytes - there);
                    self.0.backend.copy(address, address + there as u64, more)?;
                    there += more;
                }
                Ok(())
            },
        )
    }

    /// `out += a·b` and `sums += ` the sums of a's rows, all of `real`; false, and nothing done, where
    /// the device has no product that does both.
    pub fn product_with_sums(
        &self,
        out: &mut Tensor,
        a: Matrix,
        b: Matrix,
        sums: &mut Tensor,
    ) -> Result<bool> {
        let partial = self.empty(&[a.rows])?;
        let (out, row_sums) = (Matrix::of(out), Some(partial.address()));
        let product = Product { row_sums, ..Product::plain(out, a, b, true) };
        if self.multiply(product)?.is_none() {
            return Ok(false);
        }
        let elements = a.rows;
        kernels::AddScaled { x: &partial, y: sums, scale: 1.0, accumulate: true, elements }
            .launch(self, self.elements(elements))?;
        Ok(true)
    }

    /// As [`compute`](Self::compute), shapes having been looked at.
    fn multiply(&self, product: Product) -> Result<Option<()>> {
        let Product { out, a, b, .. } = product;
        if a.rows != out.rows || b.cols != out.cols || a.cols != b.rows || a.dtype != b.dtype {
            let shape = |m: &Matrix| format!("{}x{}", m.rows, m.cols);
            let problem = format!("{} times {} into {}", shape(&a), shape(&b), shape(&out));
            return Err(Error::shape("product", problem));
        }
        if out.rows == 0 || out.cols == 0 {
            return Ok(Some(()));
        }
        self.compute(&Job::Product(product))
    }

    pub(crate) fn convolution(&self, convolution: &Convolution) -> Result<()> {
        let job = Job::Convolution(*convolution);
        self.compute(&job)?.ok_or_else(|| no_way(&job))
    }

    /// None, and nothing done, where the device does no such job.
    fn compute(&self, job: &Job) -> Result<Option<()>> {
        let Some(bytes) = self.0.backend.workspace(job)? else { return Ok(None) };
        let space = match bytes {
            0 => None,
            _ => Some(self.alloc(&[bytes + WORKSPACE_ALIGNMENT], DType::U8)?),
        };
        let at = |space: &Tensor| space.address().next_multiple_of(WORKSPACE_ALIGNMENT as u64);
        let workspace = space.as_ref().map_or(0, at);
        self.timed(|| profile::job(job), || self.0.backend.compute(job, workspace)).map(Some)
    }

    /// Waits until everything launched has run.
    pub fn synchronize(&self) -> Result<()> {
        self.0.backend.synchronize()
    }

    pub fn memory(&self) -> MemoryReport {
        self.0.pools.borrow().report()
    }

    pub fn reset_peak_memory(&self) {
        self.0.pools.borrow_mut().reset_peak();
    }

    /// What `f` allocates and runs is charged to `holder` in memory reports and profiles; a range of
    /// its name for tools that watch (NVTX), unless it is within one already.
    pub fn scope<R>(&self, holder: &'static str, f: impl FnOnce() -> R) -> R {
        let before = self.0.holder.replace(holder);
        let _range = (before != holder).then(|| nvtx::range(|| holder.into()));
        let result = f();
        self.0.holder.set(before);
        result
    }
}
