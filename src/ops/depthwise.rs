//! Depthwise 3×3 convolutions.

use super::linear::over_parts;
use crate::device::constants::depthwise::{SEGMENT, SLICE};
use crate::device::{Device, Grid, kernels};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// One thread for every four channels of a slice.
const THREADS: u32 = 64;
/// The number of blocks over which a filter gradient is split, provided that each split keeps
/// enough pixels.
const BLOCKS: usize = 512;
/// The fewest pixels for which a split of the filter gradient is worthwhile.
const PART_PIXELS: usize = 16;

/// Returns `x * w + b`, where each channel has its own filter; the stride is 1, and the map is
/// padded with `dilation` zeros on each side. x and the result: B,H,W,C; w: 3,3,C; b: C.
///
/// # Errors
/// Returns a shape error if the shapes do not match, or the dilation is 0.
pub fn depthwise(
    tape: &Tape,
    x: &Tensor,
    w: &Param,
    b: Option<&Param>,
    dilation: usize,
) -> Result<Tensor> {
    let map = Map::new("depthwise", x, w, b, dilation)?;
    let mut y = tape.device().empty_like(x)?;
    map.convolve(tape.device(), x, w, b, &mut y, Pass::Forward)?;
    let (x, w, b) = (x.clone(), w.clone(), b.cloned());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        map.filter_gradient(&device, &w, b.as_ref(), |grid, dw, db| {
            kernels::DepthwiseFilter {
                x: &x,
                dy: &dy,
                dw,
                db,
                batch: map.batch,
                height: map.height,
                width: map.width,
                channels: map.channels,
                dilation: map.dilation,
            }
            .launch(&device, grid)
        })?;
        gradients.write(&x.slot, |dx, accumulate| {
            map.convolve(&device, &dy, &w, None, dx, Pass::Data { accumulate })
        })
    }))
}

/// Returns `gelu(x * w + b)` without dilation: the middle of a Mix-FFN. Shapes and errors are those
/// of [`depthwise`].
///
/// Only `x` is kept: the backward pass recomputes the input of the GELU.
pub fn depthwise_gelu(tape: &Tape, x: &Tensor, w: &Param, b: Option<&Param>) -> Result<Tensor> {
    let map = Map::new("depthwise_gelu", x, w, b, 1)?;
    let device = tape.device();
    let mut y = device.empty_like(x)?;
    let bias = b.map(|b| &b.value);
    kernels::DepthwiseGelu {
        x,
        filter: &w.value,
        bias,
        y: &mut y,
        batch: map.batch,
        height: map.height,
        width: map.width,
        channels: map.channels,
    }
    .launch(device, map.grid(device))?;
    let (x, w, b) = (x.clone(), w.clone(), b.cloned());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        let mut dz = device.empty_like(&dy)?;
        let bias = b.as_ref().map(|b| &b.value);
        map.filter_gradient(&device, &w, b.as_ref(), |grid, dw, db| {
            kernels::DepthwiseGeluFilter {
                x: &x,
                filter: &w.value,
                bias,
                dy: &dy,
                dz: &mut dz,
                dw,
                db,
                batch: map.batch,
                height: map.height,
                width: map.width,
                channels: map.channels,
            }
            .launch(&device, grid)
        })?;
        drop(dy);
        gradients.write(&x.slot, |dx, accumulate| {
            map.convolve(&device, &dz, &w, None, dx, Pass::Data { accumulate })
        })
    }))
}

enum Pass {
    Forward,
    /// Computes the input's gradient from the output's.
    Data {
        accumulate: bool,
    },
}

/// The shape of a feature map and the dilation of its convolution.
struct Map {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    dilation: usize,
}

impl Map {
    fn new(
        op: &'static str,
        x: &Tensor,
        w: &Param,
        b: Option<&Param>,
        dilation: usize,
    ) -> Result<Map> {
        let [batch, height, width, channels] = x.bhwc(op)?;
        let fits = w.value.shape() == [3, 3, channels];
        if !fits || b.is_some_and(|b| b.value.len() != channels) {
            let b = b.map(|b| &b.value);
            let problem = format!("input {x:?} does not match filter {:?} and bias {b:?}", w.value);
            return Err(Error::shape(op, problem));
        }
        if dilation == 0 {
            return Err(Error::shape(op, "the dilation must be at least 1"));
        }
        Ok(Map { batch, height, width, channels, dilation })
    }

    /// Returns the floating-point operations: nine multiply-adds per element of the map.
    fn flops(&self) -> usize {
        18 * self.batch * self.height * self.width * self.channels
    }

    /// Returns the grid of a loop over segments of rows.
    fn grid(&self, device: &Device) -> Grid {
        let segments = self.batch * self.height * self.width.div_ceil(SEGMENT);
        let work = SEGMENT * self.channels.min(SLICE);
        let grid = device.rows(segments * self.slices(), work);
        grid.threads(THREADS).flops(self.flops())
    }

    fn slices(&self) -> usize {
        self.channels.div_ceil(SLICE)
    }

    /// Returns the number of splits of a sum over pixels. It depends only on the shape, so the
    /// summation order is the same on every device.
    fn parts(&self) -> usize {
        let pixels = self.batch * self.height * self.width;
        BLOCKS.div_ceil(self.slices()).min(pixels / PART_PIXELS).max(1)
    }

    fn convolve(
        &self,
        device: &Device,
        x: &Tensor,
        w: &Param,
        b: Option<&Param>,
        y: &mut Tensor,
        pass: Pass,
    ) -> Result<()> {
        let (turned, accumulate) = match pass {
            Pass::Forward => (false, false),
            Pass::Data { accumulate } => (true, accumulate),
        };
        let (grid, bias) = (self.grid(device), b.map(|b| &b.value));
        kernels::Depthwise {
            x,
            filter: &w.value,
            bias,
            y,
            turned,
            accumulate,
            batch: self.batch,
            height: self.height,
            width: self.width,
            channels: self.channels,
            dilation: self.dilation,
        }
        .launch(device, grid)
    }

    /// Sums the splits of the filter and bias gradients that `parts` computes. `parts` is called
    /// even if neither gradient is needed.
    fn filter_gradient(
        &self,
        device: &Device,
        w: &Param,
        b: Option<&Param>,
        parts: impl FnOnce(Grid, &mut Tensor, &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        let (count, c) = (self.parts(), self.channels);
        let mut dw = device.empty(&[count, 9, c])?;
        let mut db = device.empty(&[count, c])?;
        let grid = Grid::blocks(count * self.slices()).threads(THREADS).flops(self.flops());
        parts(grid, &mut dw, &mut db)?;
        let add = |partial: &Tensor, param: Option<&Param>| match param.and_then(|p| p.grad.clone())
        {
            Some(mut sums) => {
                let (parts, channels) = (count, sums.len());
                kernels::ColumnSumsFinal { partial, sums: &mut sums, parts, channels }
                    .launch(device, over_parts(device, parts, channels))
            }
            None => Ok(()),
        };
        add(&dw, Some(w))?;
        add(&db, b)
    }
}
