//! The one launch path: a kernel, a grid and typed arguments, the same on every device.

use std::ffi::c_void;

use super::precision::Types;
use super::shapes::{Parameter, ParameterKind, Sizes};
use super::view::TensorView;
use crate::{Error, Result};

/// Instruction set that a solo body was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Base,
    V3,
    V4,
}

/// What a pointer argument points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `T`: operands of products.
    Operand,
    /// `real`: everything computed.
    Real,
    U8,
    I32,
    I64,
    U64,
}

/// One argument of a launch.
pub enum Arg<'a> {
    Pointer {
        name: &'static str,
        element: Element,
        written: bool,
        tensor: Option<TensorView<'a>>,
    },
    I64(i64),
    I32(i32),
    U64(u64),
    /// Passed as the kernel's `real`.
    Real(f64),
}

impl Arg<'_> {
    /// A size as the kernel takes it.
    pub(super) fn size(
        kernel: &'static Kernel,
        name: &'static str,
        size: usize,
    ) -> Result<Arg<'static>> {
        let too_large = || Error::shape(kernel.name, format!("`{name}` is {size}"));
        size.try_into().map(Arg::I64).map_err(|_| too_large())
    }

    /// The argument's bytes, the lowest first; a narrower parameter takes the low ones.
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

/// Blocks of a launch, and what the host device needs to give each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub blocks: i64,
    /// Threads of a block on the GPU; the host runs a block as one thread.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// Multiplications and additions, where they are many for the bytes: for profiles.
    pub flops: u64,
    /// Bytes that are touched, where they are less than all of the tensors: for profiles.
    pub part: Option<u64>,
}

impl Grid {
    /// Exactly this many blocks: for kernels to which a block means something.
    pub fn blocks(blocks: usize) -> Self {
        Grid { blocks: blocks.max(1) as i64, threads: 256, shared: 0, flops: 0, part: None }
    }

    pub fn threads(self, threads: u32) -> Self {
        Grid { threads, ..self }
    }

    pub fn shared(self, bytes: usize) -> Self {
        Grid { shared: bytes, ..self }
    }

    pub fn flops(self, flops: usize) -> Self {
        Grid { flops: flops as u64, ..self }
    }

    pub fn touching(self, bytes: usize) -> Self {
        Grid { part: Some(bytes as u64), ..self }
    }
}

/// Runs kernels in a host device's place: for tools that replace or watch them.
pub trait Launcher {
    /// Leaves in the arguments' memory what the kernel computes.
    fn launch(&self, kernel: &'static Kernel, types: Types, grid: Grid, args: &[Arg])
    -> Result<()>;
    /// Elementwise work that is worth a block.
    fn elements_per_block(&self) -> usize;
}

/// A kernel as built.
#[derive(Debug)]
pub struct Kernel {
    pub name: &'static str,
    /// In `kernels/`.
    pub file: &'static str,
    pub line: u32,
    /// In the order of a launch's arguments.
    pub parameters: &'static [Parameter],
    pub solo: &'static [Solo],
}

impl Kernel {
    /// Compares the tensors of a launch with the shapes in the signature: what does not fit is an error
    /// before the kernel runs, and never another tensor's memory.
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

/// A kernel's body for the host device.
#[derive(Debug)]
pub struct Solo {
    pub types: Types,
    pub level: Level,
    pub body: SoloBody,
}

pub type SoloBody = unsafe extern "C" fn(args: *mut *mut c_void, launch: *const SoloLaunch);

/// Mirrors `SoloLaunch` of `kernels/simt.cuh`.
#[repr(C)]
pub struct SoloLaunch {
    pub begin: i64,
    pub end: i64,
    pub count: i64,
    pub shared: *mut c_void,
}
