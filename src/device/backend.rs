//! What a device must be able to do.

use std::fmt::{Display, Formatter};

use super::launch::{Arg, Grid, Kernel, Types};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// The seam between the runtime and a device. Addresses come from [`reserve`](Backend::reserve).
pub(crate) trait Backend {
    fn describe(&self) -> String;
    /// Memory that lives as long as the device.
    fn reserve(&self, bytes: usize) -> Result<u64>;
    /// How much to reserve at once.
    fn chunk(&self) -> usize;
    fn zero(&self, address: u64, bytes: usize) -> Result<()>;
    fn copy_in(&self, address: u64, data: &[u8]) -> Result<()>;
    /// Waits for what was launched before.
    fn copy_out(&self, address: u64, data: &mut [u8]) -> Result<()>;
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;
    fn launch(&self, kernel: &'static Kernel, types: Types, grid: Grid, args: &[Arg])
    -> Result<()>;
    /// Whether operands of products are rounded to fewer digits than their sums have.
    fn rounds_operands(&self) -> bool {
        false
    }
    /// Bytes that a job needs beside its tensors. None: the device does no such job, and its caller
    /// has to do a part of it otherwise.
    fn workspace(&self, _job: &Job) -> Result<Option<usize>> {
        Ok(Some(0))
    }
    fn compute(&self, job: &Job, workspace: u64) -> Result<()>;
    fn synchronize(&self) -> Result<()>;
    /// A moment in the order of work.
    fn mark(&self) -> Result<u64>;
    /// When the device passed a mark, on its own clock; everything before it must have run.
    fn seconds(&self, mark: u64) -> Result<f64>;
    /// Nobody will ask about the marks there are.
    fn forget_marks(&self) {}
    /// Blocks that fill the device with elementwise work of `n` elements.
    fn blocks_for(&self, n: usize) -> usize;
    /// Blocks that fill it with `rows`, each costing about as much as `width` elements.
    fn blocks_of_rows(&self, rows: usize, width: usize) -> usize {
        self.blocks_for(rows * width.max(1)).min(rows)
    }
    /// Blocks whose teams (kernels/team.cuh) fill the device with `rows`, each costing about as much
    /// as `width` elements.
    fn blocks_of_teams(&self, rows: usize, width: usize) -> usize {
        self.blocks_of_rows(rows, width)
    }
    /// Blocks that a sum over rows is cut into, where teams take them: enough to fill the device, few
    /// enough to be cheap to combine.
    fn parts_of_teams(&self, rows: usize) -> usize {
        host_parts_of_teams(rows)
    }
    /// None: work that is asked for has run when the call returns, so there is nothing to record.
    fn recorder(&self) -> Option<&dyn Recorder> {
        None
    }
    /// None: transfers are done when the call returns, as everything is.
    fn transfers(&self) -> Option<&dyn Transfers> {
        None
    }
    /// Bytes to leave free behind every tensor.
    fn padding(&self) -> usize {
        0
    }
    /// Tells that a tensor now lies there, or no longer does.
    fn lend(&self, _address: u64, _bytes: usize) -> Result<()> {
        Ok(())
    }
    fn take_back(&self, _address: u64, _bytes: usize) {}
}

/// As the host cuts sums over rows.
pub(crate) fn host_parts_of_teams(rows: usize) -> usize {
    rows.div_ceil(64).min(128)
}

/// A place in the order of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(pub u64);

/// Transfers that hold up neither the host nor the work under way.
pub(crate) trait Transfers {
    /// Moves a mark, or makes one, behind all that was asked for so far.
    fn mark(&self, mark: Option<Mark>) -> Result<Mark>;
    /// Writes bytes to their addresses when work has passed `after`; work that is asked for later
    /// finds them there.
    fn send(&self, after: Mark, data: &[(u64, &[u8])]) -> Result<()>;
    /// Has bytes brought to the host; they have the place that this returns until it is forgotten.
    fn fetch(&self, from: u64, bytes: usize) -> Result<usize>;
    fn is_there(&self, place: usize) -> Result<bool>;
    /// Waits for what arrives at a place.
    fn wait(&self, place: usize, data: &mut [u8]) -> Result<()>;
    fn forget(&self, place: usize);
}

/// Work that a device has recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recording(pub u64);

/// Records work and runs it again, at the addresses that it saw.
pub(crate) trait Recorder {
    /// What is asked for from here on is recorded instead of run; nothing may wait for the device,
    /// nor come from the host.
    fn begin(&self) -> Result<()>;
    fn end(&self) -> Result<Recording>;
    fn replay(&self, recording: Recording) -> Result<()>;
    fn discard(&self, recording: Recording);
}

/// What an address is a multiple of, up to 16.
fn alignment(address: u64) -> u64 {
    1 << address.trailing_zeros().min(4)
}

/// What libraries compute, each in ways of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    Product(Product),
    Convolution(Convolution),
}

impl Job {
    /// All that ways of doing it depend on: addresses give way to what they are multiples of.
    pub fn shape(self) -> Job {
        match self {
            Job::Product(product) => Job::Product(product.shape()),
            Job::Convolution(convolution) => Job::Convolution(convolution.shape()),
        }
    }

    /// Bytes from the first to the last that it adds to; 0 where it overwrites.
    pub fn added_to(&self) -> usize {
        match self {
            Job::Product(Product { out, accumulate: true, .. }) => out.span() * out.dtype.bytes(),
            Job::Convolution(c) if c.accumulates() => c.elements()[c.written()] * c.dtype.bytes(),
            _ => 0,
        }
    }

    /// With its result elsewhere, by where it was.
    pub fn written_to(mut self, place: impl Fn(u64) -> u64) -> Job {
        let address = match &mut self {
            Job::Product(product) => &mut product.out.address,
            Job::Convolution(c) => match c.written() {
                0 => &mut c.x,
                1 => &mut c.w,
                _ => &mut c.y,
            },
        };
        *address = place(*address);
        self
    }
}

/// Of a job that cannot be done otherwise.
pub(crate) fn no_way(job: &Job) -> Error {
    Error::device(format!("the device's libraries have no way that may be taken for {job}"))
}

/// As a key of what is known about its shape.
impl Display for Job {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        match self {
            Job::Product(product) => product.fmt(f),
            Job::Convolution(convolution) => convolution.fmt(f),
        }
    }
}

/// A strided view of a tensor as a matrix. Strides count elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// Of the first element.
    pub address: u64,
    pub dtype: DType,
    pub rows: usize,
    pub cols: usize,
    pub row_stride: isize,
    pub col_stride: isize,
}

impl Matrix {
    /// All leading dimensions as rows, channels as columns.
    pub fn of(tensor: &Tensor) -> Matrix {
        Matrix {
            address: tensor.address(),
            dtype: tensor.dtype(),
            rows: tensor.rows(),
            cols: tensor.channels(),
            row_stride: tensor.channels() as isize,
            col_stride: 1,
        }
    }

    /// `rows`×`cols` of a tensor's memory, from its first element on.
    pub fn shaped(tensor: &Tensor, rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, row_stride: cols as isize, ..Matrix::of(tensor) }
    }

    /// Transposed.
    pub fn t(self) -> Matrix {
        Matrix {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Elements from the first to the last, whatever lies between; no stride is negative.
    pub fn span(&self) -> usize {
        match (self.rows, self.cols) {
            (0, _) | (_, 0) => 0,
            (rows, cols) => {
                (rows - 1) * self.row_stride as usize + (cols - 1) * self.col_stride as usize + 1
            }
        }
    }
}

/// `out = a·b`, or `out += a·b`. `a` and `b` are of one type; sums are in single precision at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub out: Matrix,
    pub a: Matrix,
    pub b: Matrix,
    pub accumulate: bool,
    /// A number for every column, of `out`'s type, that is added to every row. Not with `accumulate`.
    pub bias: Option<u64>,
    /// Where to write the sum of each of a's rows, of `out`'s type.
    pub row_sums: Option<u64>,
}

impl Product {
    /// Neither bias nor sums.
    pub fn plain(out: Matrix, a: Matrix, b: Matrix, accumulate: bool) -> Product {
        Product { out, a, b, accumulate, bias: None, row_sums: None }
    }

    /// As [`Job::shape`]; of bias and sums, whether they are there.
    fn shape(self) -> Product {
        let aligned = |m: Matrix| Matrix { address: alignment(m.address), ..m };
        let [out, a, b] = [self.out, self.a, self.b].map(aligned);
        let [bias, row_sums] = [self.bias, self.row_sums].map(|vector| vector.map(|_| 0));
        Product { out, a, b, bias, row_sums, ..self }
    }
}

impl Display for Product {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let Product { out, a, b, .. } = self;
        let order = |m: &Matrix| match (m.row_stride, m.col_stride) {
            (pitch, 1) => format!("rows {pitch} apart"),
            (1, pitch) => format!("columns {pitch} apart"),
            (rows, columns) => format!("rows {rows} and columns {columns} apart"),
        };
        let [of_a, of_b, of_out] = [a, b, out].map(order);
        let [at_a, at_b, at_out] = [a, b, out].map(|m| alignment(m.address));
        let (rows, depth, cols) = (out.rows, a.cols, out.cols);
        write!(f, "Product {:?} to {:?}, {rows}x{depth} ({of_a})", a.dtype, out.dtype)?;
        write!(f, " by {depth}x{cols} ({of_b}) into {of_out}")?;
        let told = [
            (self.accumulate, "added"),
            (self.bias.is_some(), "with a bias"),
            (self.row_sums.is_some(), "with row sums"),
        ];
        told.iter().filter(|(is, _)| *is).try_for_each(|(_, what)| write!(f, ", {what}"))?;
        write!(f, ", at multiples of {at_a}, {at_b}, {at_out}")
    }
}

/// Which of a convolution's three products to compute, and into what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvolutionPass {
    /// `y (+)= x * w`
    Forward { accumulate: bool },
    /// `x (+)= y * wᵀ`, y being the gradient of the output
    Data { accumulate: bool },
    /// `w (+)= xᵀ * y`
    Filter { accumulate: bool },
}

/// A convolution of stride 1 whose output is as large as its input. Sums are in single precision at
/// least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    pub pass: ConvolutionPass,
    pub dtype: DType,
    /// Addresses of B,H,W,C; K,R,S,C; B,H,W,K.
    pub x: u64,
    pub w: u64,
    pub y: u64,
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub filters: usize,
    /// Side of the (odd, square) filter, and its dilation.
    pub kernel: usize,
    pub dilation: usize,
}

impl Convolution {
    /// As [`Job::shape`].
    pub fn shape(self) -> Convolution {
        let [x, w, y] = [self.x, self.w, self.y].map(alignment);
        Convolution { x, w, y, ..self }
    }

    /// Which of x, w and y is written.
    pub fn written(&self) -> usize {
        match self.pass {
            ConvolutionPass::Data { .. } => 0,
            ConvolutionPass::Filter { .. } => 1,
            ConvolutionPass::Forward { .. } => 2,
        }
    }

    /// Elements of x, w and y.
    pub fn elements(&self) -> [usize; 3] {
        let pixels = self.batch * self.height * self.width;
        let filter = self.kernel * self.kernel * self.channels * self.filters;
        [pixels * self.channels, filter, pixels * self.filters]
    }

    pub fn accumulates(&self) -> bool {
        let (ConvolutionPass::Forward { accumulate }
        | ConvolutionPass::Data { accumulate }
        | ConvolutionPass::Filter { accumulate }) = self.pass;
        accumulate
    }
}

impl Display for Convolution {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let Convolution { pass, dtype, batch: b, height: h, width: w, channels: c, .. } = self;
        let (k, side, dilation) = (self.filters, self.kernel, self.dilation);
        let Convolution { x: at_x, w: at_w, y: at_y, .. } = self.shape();
        write!(
            f,
            "{pass:?} {dtype:?}, {b}x{h}x{w}x{c} to {k}, {side}x{side} dilated by {dilation}, \
             at multiples of {at_x}, {at_w}, {at_y}"
        )
    }
}
