//! Profile data: every call of a device, its cost, and the scope and layer it is attributed to.

use std::fmt;
use std::rc::Rc;

use super::launch::{Arg, Element, Grid, Kernel};
use super::library_op::{Convolution, ConvolutionPass, LibraryOp, Matmul};
use crate::dtype::DType;

/// The operation of a call.
#[derive(Clone, Debug)]
pub enum Work {
    /// A kernel launch.
    Kernel(Launch),
    /// A matmul of rows×depth by depth×cols.
    Matmul {
        /// Rows of the left operand and the output.
        rows: usize,
        /// Columns of the left operand and rows of the right one.
        depth: usize,
        /// Columns of the right operand and the output.
        cols: usize,
    },
    /// A convolution, or one of its gradients.
    Convolution {
        /// The pass: `forward`, `data` or `filter`.
        pass: &'static str,
        /// B,H,W and the channels of input and output.
        shape: [usize; 5],
    },
    /// Zeroing, a copy or a transfer, by name.
    Memory(&'static str),
}

/// A launch without its tensors: enough to repeat it on others.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// The launch configuration.
    pub grid: Grid,
    /// Arguments in the order of the signature.
    pub arguments: Vec<Argument>,
}

/// One argument of a launch.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// A tensor, with the name and element type of its parameter.
    Tensor {
        /// Name of the parameter.
        name: &'static str,
        /// Element type that the kernel declares.
        element: Element,
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// Element type of the tensor.
        dtype: DType,
        /// Whether the kernel writes to it.
        written: bool,
    },
    /// A null pointer.
    Absent,
    /// A size, a count or an offset.
    I64(i64),
    /// A 32-bit integer or a switch.
    I32(i32),
    /// An unsigned 64-bit integer.
    U64(u64),
    /// A number, passed as the kernel's `real`.
    Real(f64),
}

/// The scope and layer that a call is attributed to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The innermost [`Device::scope`](super::Device::scope).
    pub scope: &'static str,
    /// The innermost [`Device::layer`](super::Device::layer), by its checkpoint name; empty outside
    /// any layer.
    pub layer: Rc<str>,
    /// Whether the call belongs to the layer's backward.
    pub backward: bool,
}

impl Place {
    /// Returns the scope's name, marked if this is its backward.
    pub fn pass(&self) -> String {
        pass_name(self.scope, self.backward)
    }
}

/// Returns the name of a scope or a layer, or of its backward.
pub(super) fn pass_name(name: &str, backward: bool) -> String {
    if backward { format!("{name} backward") } else { name.into() }
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operation.
    pub work: Work,
    /// The scope and layer that it is attributed to.
    pub place: Place,
    /// When the device started it, in seconds since the first call started.
    pub start: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Bytes of the tensors passed: the least that is touched if each is read or written once.
    pub bytes: f64,
    /// FLOPs of matmuls, convolutions and kernels whose grid states them; 0 otherwise.
    pub flops: f64,
}

/// The calls recorded by [`Device::profile`](super::Device::profile), in order.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Time from the start of the first call to the end of the last one, in seconds.
    pub seconds: f64,
    /// The calls.
    pub calls: Vec<Call>,
}

/// Calls recorded while a profile is active, each with the backend's marks before and after it.
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

    pub fn library_op(op: &LibraryOp) -> Request {
        match op {
            LibraryOp::Matmul(p) => Self::matmul(p),
            LibraryOp::Convolution(c) => Self::convolution(c),
        }
    }

    pub fn memory(what: &'static str, bytes: usize) -> Request {
        Request { work: Work::Memory(what), bytes: bytes as f64, flops: 0.0 }
    }

    fn matmul(p: &Matmul) -> Request {
        let (rows, depth, cols) = (p.out.rows, p.a.cols, p.out.cols);
        let operands = (rows * depth + depth * cols) * p.a.dtype.bytes();
        let bytes = operands + rows * cols * p.out.dtype.bytes();
        let flops = 2.0 * (rows * depth) as f64 * cols as f64;
        Request { work: Work::Matmul { rows, depth, cols }, bytes: bytes as f64, flops }
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

    /// Returns the bytes of the tensor; 0 for a scalar.
    pub fn bytes(&self) -> usize {
        match self {
            Argument::Tensor { shape, dtype, .. } => {
                shape.iter().product::<usize>() * dtype.bytes()
            }
            _ => 0,
        }
    }
}

impl Work {
    /// Returns the name without the shape.
    pub fn name(&self) -> String {
        match self {
            Work::Kernel(launch) => launch.kernel.name.into(),
            Work::Memory(name) => (*name).into(),
            Work::Matmul { .. } => "product".into(),
            Work::Convolution { pass, .. } => format!("convolution_{pass}"),
        }
    }

    /// Returns the sizes; for a kernel, those of its largest tensor.
    pub fn shape(&self) -> String {
        match self {
            Work::Kernel(launch) => launch.shape(),
            Work::Matmul { rows, depth, cols } => joined(&[*rows, *depth, *cols]),
            Work::Convolution { shape, .. } => joined(shape),
            Work::Memory(_) => String::new(),
        }
    }
}

impl Launch {
    /// Returns the shape of the largest tensor, the first of equals.
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
