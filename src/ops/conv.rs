//! Convolutions of feature maps B,H,W,C with filters K,R,S,C.

use crate::device::{Convolution, ConvolutionPass, Device, Grid, LibraryOp, MatrixView, kernels};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::activation::upcast;
use super::channels::lanes;
use super::elementwise::{to_operand, to_real};
use super::linear::{column_sums, linear_into, parameter_gradients};
use super::matmul::{fill_rows, matmul, matmul_with_bias};

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Input pixels between neighboring outputs.
    pub stride: usize,
    /// Zeros added on each side of the image.
    pub padding: usize,
    /// Input pixels between neighboring taps.
    pub dilation: usize,
}

impl Conv {
    /// Returns the geometry with stride 1 whose output is as large as its input (for an odd
    /// `kernel`).
    pub fn same(kernel: usize, dilation: usize) -> Conv {
        Conv { stride: 1, padding: dilation * (kernel / 2), dilation }
    }

    /// Returns a geometry with dilation 1.
    pub fn strided(stride: usize, padding: usize) -> Conv {
        Conv { stride, padding, dilation: 1 }
    }

    /// Returns the output size along one side of the image, or `None` if the filter does not fit.
    pub fn output(&self, size: usize, kernel: usize) -> Option<usize> {
        let span = self.dilation * kernel.checked_sub(1)? + 1;
        (size + 2 * self.padding).checked_sub(span)?.checked_div(self.stride).map(|n| n + 1)
    }
}

/// Computes `y[b,ho,wo,k] = Σ w[k,r,s,c]·x[b, ho·stride - padding + r·dilation, …, c] + b[k]`. x:
/// B,H,W,C; w: K,R,S,C; b: K; y: B,Ho,Wo,K, in the storage type.
///
/// # Errors
/// Returns a shape error if the shapes do not match, the stride or dilation is 0, or the filter is
/// larger than the padded image.
pub fn conv(
    tape: &Tape,
    x: &Tensor,
    w: &Param,
    b: Option<&Param>,
    geometry: Conv,
) -> Result<Tensor> {
    conv_into(tape, x, w, b, geometry, tape.device().operand())
}

/// Computes [`conv`] with an output in the compute type, as norms of the residual stream need it.
///
/// # Errors
/// Returns the same errors as [`conv`].
pub fn conv_wide(
    tape: &Tape,
    x: &Tensor,
    w: &Param,
    b: Option<&Param>,
    geometry: Conv,
) -> Result<Tensor> {
    conv_into(tape, x, w, b, geometry, tape.device().real())
}

fn conv_into(
    tape: &Tape,
    x: &Tensor,
    w: &Param,
    b: Option<&Param>,
    geometry: Conv,
    dtype: DType,
) -> Result<Tensor> {
    let wrong = |problem: &str| {
        let (x, w) = (x.shape(), w.value.shape());
        Error::shape("conv", format!("{problem} (input {x:?}, filters {w:?}, {geometry:?})"))
    };
    let &[batch, height, width, channels] = x.shape() else {
        return Err(wrong("the input is not a feature map B,H,W,C"));
    };
    let &[filters, taps_h, taps_w, depth] = w.value.shape() else {
        return Err(wrong("the filters are not K,R,S,C"));
    };
    if depth != channels {
        return Err(wrong("filters and input differ in their number of channels"));
    }
    if geometry.stride == 0 || geometry.dilation == 0 {
        return Err(wrong("stride and dilation must be at least 1"));
    }
    let size = geometry.output(height, taps_h).zip(geometry.output(width, taps_w));
    let Some((out_height, out_width)) = size else {
        return Err(wrong("the filter is larger than the padded image"));
    };
    if let Some(b) = b
        && b.value.len() != filters
    {
        return Err(wrong("there must be one bias per filter"));
    }

    if taps_h == 1 && taps_w == 1 && geometry == Conv::same(1, geometry.dilation) {
        return linear_into(tape, x, w, b, dtype);
    }
    let square = taps_h == taps_w && taps_h % 2 == 1;
    if square && geometry == Conv::same(taps_h, geometry.dilation) {
        let shape = Same { batch, height, width, channels, filters, taps: taps_h, geometry };
        let y = shape.record(tape, x, w, b)?;
        return if dtype == y.dtype() { Ok(y) } else { upcast(tape, &y) };
    }
    let image = Patches {
        height,
        width,
        channels,
        out_height,
        out_width,
        taps_h,
        taps_w,
        filters,
        geometry,
    };
    image.record(tape, x, w, b, dtype)
}

/// A convolution with stride 1 and an output as large as its input, which the device libraries
/// implement directly.
#[derive(Clone, Copy)]
struct Same {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    filters: usize,
    taps: usize,
    geometry: Conv,
}

impl Same {
    fn pass(
        self,
        device: &Device,
        pass: ConvolutionPass,
        x: &Tensor,
        w: &Tensor,
        y: &Tensor,
    ) -> Result<()> {
        let convolution = Convolution {
            pass,
            dtype: x.dtype(),
            x: x.address(),
            w: w.address(),
            y: y.address(),
            batch: self.batch,
            height: self.height,
            width: self.width,
            channels: self.channels,
            filters: self.filters,
            kernel: self.taps,
            dilation: self.geometry.dilation,
        };
        for (tensor, elements) in [x, w, y].into_iter().zip(convolution.elements()) {
            device.require_own("conv", tensor.view())?;
            if tensor.dtype() != x.dtype() || tensor.len() != elements {
                let problem = format!("{tensor:?} instead of {elements} of {:?}", x.dtype());
                return Err(Error::shape("conv", problem));
            }
        }
        let op = LibraryOp::Convolution(convolution);
        device.compute(&op)?.ok_or_else(|| op.refused())
    }

    fn record(self, tape: &Tape, x: &Tensor, w: &Param, b: Option<&Param>) -> Result<Tensor> {
        let device = tape.device();
        let mut y =
            device.alloc(&[self.batch, self.height, self.width, self.filters], x.dtype())?;
        if let Some(b) = b {
            fill_rows(device, &b.value, &mut y)?;
        }
        let weights = w.operand(device)?;
        let forward = ConvolutionPass::Forward { accumulate: b.is_some() };
        self.pass(device, forward, x, &weights, &y)?;

        let (x, dw, db) = (x.clone(), w.grad.clone(), b.and_then(|b| b.grad.clone()));
        Ok(tape.record(y, move |gradients, dy| {
            let device = gradients.device().clone();
            if let Some(mut db) = db {
                column_sums(&device, &dy, &mut db)?;
            }
            if let Some(dw) = dw {
                self.filter_gradient(&device, &x, dw, &dy)?;
            }
            gradients.write(&x.slot, |dx, accumulate| {
                self.pass(&device, ConvolutionPass::Data { accumulate }, dx, &weights, &dy)
            })
        }))
    }

    /// Adds the filter gradient to `dw`. The library convolution writes the type that it reads: if
    /// the storage type is not the compute type, the gradient is rounded once before it is added.
    fn filter_gradient(
        self,
        device: &Device,
        x: &Tensor,
        mut dw: Tensor,
        dy: &Tensor,
    ) -> Result<()> {
        let accumulate = x.dtype() == dw.dtype();
        let filter = ConvolutionPass::Filter { accumulate };
        if accumulate {
            return self.pass(device, filter, x, &dw, dy);
        }
        let rounded = device.alloc(dw.shape(), x.dtype())?;
        self.pass(device, filter, x, &rounded, dy)?;
        to_real(device, &rounded, &mut dw, true)
    }
}

/// A convolution of any other geometry: patches are gathered into a matrix (im2col), a few images
/// at a time. The backward pass gathers them again, because that costs only a copy, while storing
/// them would take up to 12 times the memory of the image.
#[derive(Clone, Copy)]
struct Patches {
    height: usize,
    width: usize,
    channels: usize,
    out_height: usize,
    out_width: usize,
    taps_h: usize,
    taps_w: usize,
    filters: usize,
    geometry: Conv,
}

/// Elements of patches in memory at a time, unless one image has more.
const PATCH_ELEMENTS: usize = 16 << 20;

impl Patches {
    /// Returns the outputs of one image and the number of elements that each of them reads.
    fn matrix(self) -> (usize, usize) {
        (self.out_height * self.out_width, self.taps_h * self.taps_w * self.channels)
    }

    /// Returns the splits of a batch as (first image, images).
    fn parts(self, batch: usize) -> impl Iterator<Item = (usize, usize)> {
        let (rows, depth) = self.matrix();
        let images = (PATCH_ELEMENTS / (rows * depth).max(1)).clamp(1, batch.max(1));
        (0..batch).step_by(images).map(move |first| (first, images.min(batch - first)))
    }

    /// Returns the images of a split, from a tensor with the input's shape.
    fn input(self, x: &Tensor, (first, images): (usize, usize)) -> Result<Tensor> {
        let shape = [images, self.height, self.width, self.channels];
        x.slice(first * shape[1..].iter().product::<usize>(), &shape)
    }

    /// Returns the images of a split as a matrix, from a tensor with the output's shape.
    fn output(self, y: &Tensor, (first, images): (usize, usize)) -> Result<Tensor> {
        let rows = self.out_height * self.out_width;
        y.slice(first * rows * self.filters, &[images * rows, self.filters])
    }

    fn gather(self, device: &Device, x: &Tensor) -> Result<Tensor> {
        let (rows, depth) = self.matrix();
        let batch = x.dim(0);
        let mut patches = device.alloc(&[batch * rows, depth], x.dtype())?;
        let run = if self.geometry.dilation == 1 { self.taps_w } else { 1 } * self.channels;
        let grid = lanes(device.rows(batch * rows, depth), run);
        kernels::PatchesGather {
            x,
            patches: &mut patches,
            batch,
            height: self.height,
            width: self.width,
            channels: self.channels,
            out_height: self.out_height,
            out_width: self.out_width,
            kernel_height: self.taps_h,
            kernel_width: self.taps_w,
            stride: self.geometry.stride,
            padding: self.geometry.padding,
            dilation: self.geometry.dilation,
        }
        .launch(device, grid)?;
        Ok(patches)
    }

    fn scatter(
        self,
        device: &Device,
        patches: &Tensor,
        dx: &mut Tensor,
        accumulate: bool,
    ) -> Result<()> {
        let (rows, depth) = self.matrix();
        let batch = dx.dim(0);
        let pixels = batch * self.height * self.width;
        let grid = self.sums(device.rows(pixels, batch * rows * depth / pixels), device);
        kernels::PatchesScatter {
            patches,
            dx,
            accumulate,
            batch,
            height: self.height,
            width: self.width,
            channels: self.channels,
            out_height: self.out_height,
            out_width: self.out_width,
            kernel_height: self.taps_h,
            kernel_width: self.taps_w,
            stride: self.geometry.stride,
            padding: self.geometry.padding,
            dilation: self.geometry.dilation,
        }
        .launch(device, grid)
    }

    /// Adds one sum per channel of shared memory to each block.
    fn sums(self, grid: Grid, device: &Device) -> Grid {
        lanes(grid, self.channels).shared(self.channels * device.real().bytes())
    }

    fn record(
        self,
        tape: &Tape,
        x: &Tensor,
        w: &Param,
        b: Option<&Param>,
        dtype: DType,
    ) -> Result<Tensor> {
        let device = tape.device();
        let batch = x.dim(0);
        let depth = self.matrix().1;
        let weights = w.operand(device)?;
        let shape = [batch, self.out_height, self.out_width, self.filters];
        let y = device.alloc(&shape, dtype)?;
        for part in self.parts(batch) {
            let patches = self.gather(device, &self.input(x, part)?)?;
            let mut y = self.output(&y, part)?;
            let weights = MatrixView::shaped(&weights, self.filters, depth)?.t();
            matmul_with_bias(device, &mut y, MatrixView::of(&patches), weights, b)?;
        }

        let (x, dw, db) = (x.clone(), w.grad.clone(), b.and_then(|b| b.grad.clone()));
        Ok(tape.record(y, move |gradients, dy| {
            let device = gradients.device().clone();
            let dy = to_operand(&device, &dy)?;
            if dw.is_some() || db.is_some() {
                for part in self.parts(batch) {
                    let patches = self.gather(&device, &self.input(&x, part)?)?;
                    let dy = self.output(&dy, part)?;
                    parameter_gradients(&device, &dy, &patches, dw.clone(), db.clone())?;
                }
            }
            gradients.write(&x.slot, |dx, accumulate| {
                for part in self.parts(batch) {
                    let dy = self.output(&dy, part)?;
                    let mut patches = device.alloc(&[dy.dim(0), depth], dy.dtype())?;
                    let weights = MatrixView::shaped(&weights, self.filters, depth)?;
                    matmul(&device, &mut patches, MatrixView::of(&dy), weights, false)?;
                    self.scatter(&device, &patches, &mut self.input(dx, part)?, accumulate)?;
                }
                Ok(())
            })
        }))
    }
}
