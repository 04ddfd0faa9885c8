//! Descriptors of library ops (matmuls and convolutions): the addresses, shapes and types of their
//! operands.

use std::fmt::{Display, Formatter};

use crate::Error;
use crate::dtype::DType;

/// Returns the largest power of two, up to 16, that divides an address.
fn alignment(address: u64) -> u64 {
    1 << address.trailing_zeros().min(4)
}

/// A library op. A library may offer several algorithms for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LibraryOp {
    /// A matmul.
    Matmul(Matmul),
    /// A convolution, or one of its gradients.
    Convolution(Convolution),
}

impl LibraryOp {
    /// Returns everything that the choice of an algorithm depends on: the op with each address
    /// replaced by its alignment.
    pub fn shape(self) -> LibraryOp {
        match self {
            LibraryOp::Matmul(product) => LibraryOp::Matmul(product.shape()),
            LibraryOp::Convolution(convolution) => LibraryOp::Convolution(convolution.shape()),
        }
    }

    /// Returns the extent in bytes, from the first to the last element, of the tensor that the op
    /// accumulates into; 0 if the op overwrites its output.
    pub fn added_to(&self) -> usize {
        match self {
            LibraryOp::Matmul(Matmul { out, accumulate: true, .. }) => {
                out.span() * out.dtype.bytes()
            }
            LibraryOp::Convolution(c) if c.accumulates() => {
                c.elements()[c.written()] * c.dtype.bytes()
            }
            _ => 0,
        }
    }

    /// Returns the op with its output moved from its address to `place(address)`.
    pub fn written_to(mut self, place: impl Fn(u64) -> u64) -> LibraryOp {
        let address = match &mut self {
            LibraryOp::Matmul(product) => &mut product.out.address,
            LibraryOp::Convolution(c) => match c.written() {
                0 => &mut c.x,
                1 => &mut c.w,
                _ => &mut c.y,
            },
        };
        *address = place(*address);
        self
    }

    /// Returns the error for an op that the device does not support and the caller cannot replace.
    pub(crate) fn refused(&self) -> Error {
        Error::device(format!("the device's libraries have no usable algorithm for {self}"))
    }
}

/// Formats the op as its key in the autotune cache.
impl Display for LibraryOp {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        match self {
            LibraryOp::Matmul(product) => product.fmt(f),
            LibraryOp::Convolution(convolution) => convolution.fmt(f),
        }
    }
}

/// A strided view of a tensor as a matrix. Strides count elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// Address of the first element.
    pub address: u64,
    /// Element type.
    pub dtype: DType,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: isize,
    /// Elements from one column to the next.
    pub col_stride: isize,
}

impl Matrix {
    /// Views rows that follow each other in memory without gaps.
    pub fn contiguous(address: u64, dtype: DType, rows: usize, cols: usize) -> Matrix {
        Matrix { address, dtype, rows, cols, row_stride: cols as isize, col_stride: 1 }
    }

    /// Returns the transposed view.
    pub fn t(self) -> Matrix {
        Matrix {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Returns `count` rows, from row `first` on.
    pub fn rows(self, range: (usize, usize)) -> Matrix {
        self.t().columns(range).t()
    }

    /// Returns `count` columns, from column `first` on.
    pub fn columns(self, (first, count): (usize, usize)) -> Matrix {
        let offset = first as isize * self.col_stride * self.dtype.bytes() as isize;
        Matrix { address: self.address.wrapping_add_signed(offset as i64), cols: count, ..self }
    }

    /// Returns the number of elements from the first to the last, gaps included. No stride may be
    /// negative.
    pub fn span(&self) -> usize {
        match (self.rows, self.cols) {
            (0, _) | (_, 0) => 0,
            (rows, cols) => {
                (rows - 1) * self.row_stride as usize + (cols - 1) * self.col_stride as usize + 1
            }
        }
    }
}

/// A matmul `out = a·b`, or `out += a·b`. `a` and `b` have the same type; sums are at least single
/// precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    /// The output.
    pub out: Matrix,
    /// The left operand.
    pub a: Matrix,
    /// The right operand.
    pub b: Matrix,
    /// Whether to add to `out` instead of overwriting it.
    pub accumulate: bool,
    /// Address of a bias in `out`'s type, one element per column, that is added to every row. It
    /// excludes `accumulate`.
    pub bias: Option<u64>,
    /// Address that receives the sum of each row of `a`, in `out`'s type.
    pub row_sums: Option<u64>,
}

impl Matmul {
    /// Creates a matmul with neither bias nor row sums.
    pub fn plain(out: Matrix, a: Matrix, b: Matrix, accumulate: bool) -> Matmul {
        Matmul { out, a, b, accumulate, bias: None, row_sums: None }
    }

    /// See [`LibraryOp::shape`].
    fn shape(self) -> Matmul {
        let aligned = |m: Matrix| Matrix { address: alignment(m.address), ..m };
        let [out, a, b] = [self.out, self.a, self.b].map(aligned);
        let [bias, row_sums] = [self.bias, self.row_sums].map(|vector| vector.map(alignment));
        Matmul { out, a, b, bias, row_sums, ..self }
    }
}

impl Display for Matmul {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let Matmul { out, a, b, .. } = self;
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
        if self.accumulate {
            write!(f, ", added")?;
        }
        for (vector, what) in [(self.bias, "with a bias"), (self.row_sums, "with row sums")] {
            vector.map_or(Ok(()), |at| write!(f, ", {what} at a multiple of {}", alignment(at)))?;
        }
        write!(f, ", at multiples of {at_a}, {at_b}, {at_out}")
    }
}

/// The pass of a convolution to compute, and whether it accumulates into its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvolutionPass {
    /// The forward pass: `y (+)= x * w`.
    Forward {
        /// Whether the result is added to the output.
        accumulate: bool,
    },
    /// The input gradient: `x (+)= y * wᵀ`, where y is the gradient of the output.
    Data {
        /// Whether the result is added to the output.
        accumulate: bool,
    },
    /// The filter gradient: `w (+)= xᵀ * y`, where y is the gradient of the output.
    Filter {
        /// Whether the result is added to the output.
        accumulate: bool,
    },
}

/// A convolution with stride 1 whose output is as large as its input. Sums are at least single
/// precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// The pass to compute.
    pub pass: ConvolutionPass,
    /// Element type of all three tensors.
    pub dtype: DType,
    /// Address of the input, B,H,W,C.
    pub x: u64,
    /// Address of the filter, K,R,S,C.
    pub w: u64,
    /// Address of the output, B,H,W,K.
    pub y: u64,
    /// Number of images.
    pub batch: usize,
    /// Height of the images.
    pub height: usize,
    /// Width of the images.
    pub width: usize,
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub filters: usize,
    /// Side of the odd, square filter.
    pub kernel: usize,
    /// Distance between neighboring taps, in pixels.
    pub dilation: usize,
}

impl Convolution {
    /// See [`LibraryOp::shape`].
    pub fn shape(self) -> Convolution {
        let [x, w, y] = [self.x, self.w, self.y].map(alignment);
        Convolution { x, w, y, ..self }
    }

    /// Returns which tensor is written: 0 for x, 1 for w, 2 for y.
    pub fn written(&self) -> usize {
        match self.pass {
            ConvolutionPass::Data { .. } => 0,
            ConvolutionPass::Filter { .. } => 1,
            ConvolutionPass::Forward { .. } => 2,
        }
    }

    /// Returns the number of elements in x, w and y.
    pub fn elements(&self) -> [usize; 3] {
        let pixels = self.batch * self.height * self.width;
        let filter = self.kernel * self.kernel * self.channels * self.filters;
        [pixels * self.channels, filter, pixels * self.filters]
    }

    /// Returns whether the pass adds to its output instead of overwriting it.
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
