//! What a device's libraries compute: matrix products and convolutions, described by the addresses,
//! shapes and types of their operands.

use std::fmt::{Display, Formatter};

use crate::Error;
use crate::dtype::DType;

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

    /// The error where the device cannot do it and its caller cannot do otherwise.
    pub(crate) fn refused(&self) -> Error {
        Error::device(format!("the device's libraries have no way that may be taken for {self}"))
    }
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
