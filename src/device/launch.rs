//! The only launch path: a kernel, a grid and typed arguments, the same on every device.

use std::ffi::c_void;

use super::precision::Types;
use super::shapes::{Parameter, ParameterKind, Sizes};
use super::view::TensorView;
use crate::{Error, Result};

/// The x86-64 instruction set level of a serial CPU build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The target's baseline.
    Base,
    /// x86-64-v3: AVX2 and FMA.
    V3,
    /// x86-64-v4: AVX-512.
    V4,
}

/// The element type of a pointer argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `T`, the storage type of matmul operands.
    Operand,
    /// `real`, the compute type.
    Real,
    /// Unsigned 8-bit integers.
    U8,
    /// Signed 32-bit integers.
    I32,
    /// Signed 64-bit integers.
    I64,
    /// Unsigned 64-bit integers.
    U64,
}

/// One argument of a launch.
pub enum Arg<'a> {
    /// A pointer to a tensor, or null.
    Pointer {
        /// The parameter's name in the kernel's signature.
        name: &'static str,
        /// The element type that the kernel expects.
        element: Element,
        /// Whether the kernel writes to the tensor.
        written: bool,
        /// The tensor; None passes a null pointer.
        tensor: Option<TensorView<'a>>,
    },
    /// A size, a count or an offset.
    I64(i64),
    /// A 32-bit integer or a switch.
    I32(i32),
    /// An unsigned 64-bit integer.
    U64(u64),
    /// A number, passed as the kernel's `real`.
    Real(f64),
}

impl Arg<'_> {
    /// Converts a size to the `int64_t` that the kernel takes.
    pub(super) fn size(
        kernel: &'static Kernel,
        name: &'static str,
        size: usize,
    ) -> Result<Arg<'static>> {
        let too_large = || Error::shape(kernel.name, format!("`{name}` is {size}"));
        size.try_into().map(Arg::I64).map_err(|_| too_large())
    }

    /// Returns the argument's bytes, lowest first; a narrower parameter takes the low ones.
    pub fn word(&self, types: Types) -> u64 {
        match *self {
            Arg::Pointer { tensor, .. } => tensor.map_or(0, |t| t.address),
            Arg::I64(x) => x as u64,
            Arg::I32(x) => x as u32 as u64,
            Arg::U64(x) => x,
            Arg::Real(x) => match types {
                Types::F32 | Types::Bf16 => (x as f32).to_bits() as u64,
                Types::F64 => x.to_bits(),
            },
        }
    }
}

/// Most blocks of a launch, and most threads of a block, on any GPU.
const MAX_BLOCKS: i64 = i32::MAX as i64;
const MAX_THREADS: u32 = 1024;

/// The launch configuration, with cost estimates for profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Number of blocks.
    pub blocks: i64,
    /// Threads per block on the GPU; the host runs each block as one thread.
    pub threads: u32,
    /// Dynamic shared memory per block, in bytes.
    pub shared: usize,
    /// FLOPs, given only by kernels that do many per byte; for profiles.
    pub flops: u64,
    /// Bytes that are touched, given where they are less than all of the tensors; for profiles.
    pub part: Option<u64>,
}

impl Grid {
    /// Creates a grid of exactly this many blocks (at least one), for kernels in which a block has
    /// a meaning.
    pub fn blocks(blocks: usize) -> Self {
        Grid { blocks: blocks.max(1) as i64, threads: 256, shared: 0, flops: 0, part: None }
    }

    /// Returns what is wrong with the grid, if no GPU could launch it.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if !(1..=MAX_BLOCKS).contains(&self.blocks) || !(1..=MAX_THREADS).contains(&self.threads) {
            let Grid { blocks, threads, .. } = self;
            return Err(format!("{blocks} blocks of {threads} threads"));
        }
        Ok(())
    }

    /// Sets the threads per block.
    pub fn threads(self, threads: u32) -> Self {
        Grid { threads, ..self }
    }

    /// Sets the dynamic shared memory per block, in bytes.
    pub fn shared(self, bytes: usize) -> Self {
        Grid { shared: bytes, ..self }
    }

    /// Sets the FLOPs that profiles report.
    pub fn flops(self, flops: usize) -> Self {
        Grid { flops: flops as u64, ..self }
    }

    /// Sets the bytes touched that profiles report.
    pub fn touching(self, bytes: usize) -> Self {
        Grid { part: Some(bytes as u64), ..self }
    }
}

/// Runs kernels in place of a host device, for tools that replace or observe them.
pub trait Launcher {
    /// Runs a kernel; its results are in the arguments' memory when this returns.
    fn launch(&self, kernel: &'static Kernel, types: Types, grid: Grid, args: &[Arg])
    -> Result<()>;
    /// Returns how many elements of elementwise work are worth a block.
    fn elements_per_block(&self) -> usize;
}

/// A kernel and its builds.
#[derive(Debug)]
pub struct Kernel {
    /// The name in its signature.
    pub name: &'static str,
    /// Source file in `kernels/`.
    pub file: &'static str,
    /// Line of the signature in the source file.
    pub line: u32,
    /// Parameters, in the order of a launch's arguments.
    pub parameters: &'static [Parameter],
    /// Serial CPU builds.
    pub serial: &'static [Serial],
    /// The whole source file, if the kernel is not the program's own: a GPU's code is made of it.
    pub source: Option<&'static str>,
}

impl Kernel {
    /// Checks the tensors of a launch against the shapes in the signature, so that a mismatch is an
    /// error before the kernel runs instead of an access to another tensor's memory.
    pub(super) fn check_sizes(&'static self, grid: Grid, args: &[Arg]) -> Result<()> {
        let argument = |position: usize| match args.get(position) {
            Some(&Arg::I64(size)) => size.try_into().ok(),
            _ => None,
        };
        let blocks = grid.blocks.try_into().unwrap_or(0);
        let sizes = Sizes { argument: &argument, blocks };
        for (Parameter { name, kind }, arg) in self.parameters.iter().zip(args) {
            if let ParameterKind::Tensor(shape) = kind
                && let Arg::Pointer { tensor: Some(tensor), .. } = arg
            {
                let checked = shape.check(tensor.len(), &sizes);
                checked.map_err(|e| Error::shape(self.name, format!("`{name}` {e}")))?;
            }
        }
        Ok(())
    }
}

/// A serial CPU build of a kernel.
#[derive(Debug)]
pub struct Serial {
    /// Storage and compute types of the build.
    pub types: Types,
    /// Instruction set of the build.
    pub level: Level,
    /// Entry point.
    pub body: SerialBody,
}

/// Entry point of a serial CPU build: `args` points to one pointer per argument.
pub type SerialBody = unsafe extern "C" fn(args: *mut *mut c_void, launch: *const SerialLaunch);

/// The blocks `begin..end` of a grid of `count`. Mirrors `SerialLaunch` in `kernels/simt.cuh`.
#[repr(C)]
pub struct SerialLaunch {
    pub begin: i64,
    pub end: i64,
    pub count: i64,
    pub shared: *mut c_void,
}
