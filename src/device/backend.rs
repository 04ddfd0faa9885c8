//! What a device must be able to do.

use std::fmt::{Display, Formatter};

use super::launch::{Arg, Grid, Kernel, Types};
use crate::Result;
use crate::tensor::{DType, Tensor};

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
    fn product(&self, product: &Product) -> Result<()>;
    /// Whether operands of products are rounded to fewer digits than their sums have.
    fn rounds_operands(&self) -> bool {
        false
    }
    /// Whether it computes a product's row sums along the way.
    fn sums_rows(&self, _product: &Product) -> bool {
        false
    }
    /// Bytes that a convolution needs beside its tensors.
    fn workspace(&self, _convolution: &Convolution) -> Result<usize> {
        Ok(0)
    }
    fn convolution(&self, convolution: &Convolution, workspace: u64) -> Result<()>;
    fn synchronize(&self) -> Result<()>;
    /// A moment in the order of work.
    fn mark(&self) -> Result<u64>;
    /// When the device passed a mark, on its own clock; everything before it must have run.
    fn seconds(&self, mark: u64) -> Result<f64>;
    /// Nobody will ask about the marks there are.
    fn forget_marks(&self) {}
    /// Blocks that fill the device with elementwise work of `n` elements.
    fn blocks_for(&self, n: usize) -> usize;
    /// Blocks whose teams (kernels/team.cuh) fill the device with `rows`, each costing about as much
    /// as `width` elements.
    fn blocks_of_teams(&self, rows: usize, width: usize) -> usize {
        self.blocks_for(rows * width.max(1)).min(rows)
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

/// A strided view of a tensor as a matrix. Strides count elements.
#[derive(Clone, Copy, Debug)]
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
}

/// `out = a·b`, or `out += a·b`. `a` and `b` are of one type; sums are in single precision at least.
#[derive(Clone, Copy, Debug)]
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
    /// All that ways of computing it depend on: addresses give way to what they are multiples of, up
    /// to 16.
    pub fn shape(self) -> Convolution {
        let [x, w, y] = [self.x, self.w, self.y].map(|at| 1 << at.trailing_zeros().min(4));
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

    /// With what is written elsewhere, by where it was.
    pub fn written_to(mut self, place: impl Fn(u64) -> u64) -> Convolution {
        let address = match self.pass {
            ConvolutionPass::Data { .. } => &mut self.x,
            ConvolutionPass::Filter { .. } => &mut self.w,
            ConvolutionPass::Forward { .. } => &mut self.y,
        };
        *address = place(*address);
        self
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

/// As a key of what is known about its shape.
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
