//! What a profile holds: every call of a device, what it cost, and on whose behalf it was made.

use std::fmt;
use std::rc::Rc;

use super::job::{Convolution, ConvolutionPass, Job, Product};
use super::launch::{Arg, Element, Grid, Kernel};
use crate::dtype::DType;

/// What a call asked for.
#[derive(Clone, Debug)]
pub enum Work {
    Kernel(Launch),
    /// rows×depth times depth×cols.
    Product {
        rows: usize,
        depth: usize,
        cols: usize,
    },
    /// B,H,W and channels in and out.
    Convolution {
        pass: &'static str,
        shape: [usize; 5],
    },
    /// Zeroing, copies, transfers.
    Memory(&'static str),
}

/// A launch without its tensors: enough to launch the same again on others.
#[derive(Clone, Debug)]
pub struct Launch {
    pub kernel: &'static Kernel,
    pub grid: Grid,
    pub arguments: Vec<Argument>,
}

/// One argument of a launch.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    Tensor { name: &'static str, element: Element, shape: Vec<usize>, dtype: DType, written: bool },
    Absent,
    I64(i64),
    I32(i32),
    U64(u64),
    Real(f64),
}

/// On whose behalf a call was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The innermost [`Device::scope`](super::Device::scope).
    pub scope: &'static str,
    /// The innermost [`Device::layer`](super::Device::layer), by its name in checkpoints; empty
    /// outside of any.
    pub layer: Rc<str>,
    /// Whether it is part of the layer's backward.
    pub backward: bool,
}

impl Place {
    /// The scope, and whether this is its backward.
    pub fn pass(&self) -> String {
        pass_name(self.scope, self.backward)
    }
}

/// The name of a scope or a layer, or of its backward.
pub(super) fn pass_name(name: &str, backward: bool) -> String {
    if backward { format!("{name} backward") } else { name.into() }
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    pub work: Work,
    pub place: Place,
    /// When the device began it, in seconds from the first call on.
    pub start: f64,
    pub seconds: f64,
    /// Of the tensors handed over: what is touched at least, were each read or written once.
    pub bytes: f64,
    /// Of products, convolutions and the kernels whose grid tells them.
    pub flops: f64,
}

/// What [`Device::profile`](super::Device::profile) saw, in order.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// From the first call's beginning to the last one's end.
    pub seconds: f64,
    pub calls: Vec<Call>,
}

/// Calls while a profile is being taken, each with the marks of the backend before and behind it.
pub(super) type Recorded = Vec<(Call, [u64; 2])>;

/// A call that is about to be made.
pub(super) struct Request {
    pub work: Work,
    pub bytes: f64,
    pub flops: f64,
}

impl Request {
    pub fn launch(kernel: &'static Kernel, grid: Grid, args: &[Arg]) -> Request {
        let arguments: Vec<Argument> = args.iter().map(Argument::of).collect();
        let all = || arguments.iter().map(Argument::bytes).sum::<usize>() as u64;
        let bytes = grid.part.unwrap_or_else(all) as f64;
        let work = Work::Kernel(Launch { kernel, grid, arguments });
        Request { work, bytes, flops: grid.flops as f64 }
    }

    pub fn job(job: &Job) -> Request {
        match job {
            Job::Product(p) => Self::product(p),
            Job::Convolution(c) => Self::convolution(c),
        }
    }

    pub fn memory(what: &'static str, bytes: usize) -> Request {
        Request { work: Work::Memory(what), bytes: bytes as f64, flops: 0.0 }
    }

    fn product(p: &Product) -> Request {
        let (rows, depth, cols) = (p.out.rows, p.a.cols, p.out.cols);
        let operands = (rows * depth + depth * cols) * p.a.dtype.bytes();
        let bytes = operands + rows * cols * p.out.dtype.bytes();
        let flops = 2.0 * (rows * depth) as f64 * cols as f64;
        Request { work: Work::Product { rows, depth, cols }, bytes: bytes as f64, flops }
    }

    fn convolution(c: &Convolution) -> Request {
        let pass = match c.pass {
            ConvolutionPass::Forward { .. } => "forward",
            ConvolutionPass::Data { .. } => "data",
            ConvolutionPass::Filter { .. } => "filter",
        };
        let elements = c.elements();
        let bytes = elements.iter().sum::<usize>() * c.dtype.bytes();
        let shape = [c.batch, c.height, c.width, c.channels, c.filters];
        let pixels = (c.batch * c.height * c.width) as f64;
        let flops = 2.0 * pixels * elements[1] as f64;
        Request { work: Work::Convolution { pass, shape }, bytes: bytes as f64, flops }
    }
}

impl Argument {
    fn of(arg: &Arg) -> Argument {
        match *arg {
            Arg::Pointer { name, element, written, tensor: Some(tensor) } => {
                let (shape, dtype) = (tensor.shape.to_vec(), tensor.dtype);
                Argument::Tensor { name, element, shape, dtype, written }
            }
            Arg::Pointer { .. } => Argument::Absent,
            Arg::I64(x) => Argument::I64(x),
            Arg::I32(x) => Argument::I32(x),
            Arg::U64(x) => Argument::U64(x),
            Arg::Real(x) => Argument::Real(x),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Argument::Tensor { shape, dtype, .. } => {
                shape.iter().product::<usize>() * dtype.bytes()
            }
            _ => 0,
        }
    }
}

impl Work {
    /// Without the shape.
    pub fn name(&self) -> String {
        match self {
            Work::Kernel(launch) => launch.kernel.name.into(),
            Work::Memory(name) => (*name).into(),
            Work::Product { .. } => "product".into(),
            Work::Convolution { pass, .. } => format!("convolution_{pass}"),
        }
    }

    /// Sizes: of a kernel, its largest tensor's.
    pub fn shape(&self) -> String {
        match self {
            Work::Kernel(launch) => launch.shape(),
            Work::Product { rows, depth, cols } => joined(&[*rows, *depth, *cols]),
            Work::Convolution { shape, .. } => joined(shape),
            Work::Memory(_) => String::new(),
        }
    }
}

impl Launch {
    /// That of its largest tensor, the first of equals.
    pub fn shape(&self) -> String {
        let mut largest: &[usize] = &[];
        for argument in &self.arguments {
            if let Argument::Tensor { shape, .. } = argument
                && shape.iter().product::<usize>() > largest.iter().product()
            {
                largest = shape;
            }
        }
        joined(largest)
    }
}

fn joined(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.shape())
    }
}
