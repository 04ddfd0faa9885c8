//! Bilinear resizing with half-pixel centers: corners not aligned, no antialiasing.

use crate::device::constants::resize::PICTURE_CHANNELS;
use crate::device::{Device, Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::channels::{lanes, put_channels, take_channels};

/// Resizes x: B,H,W,C to `size` (height, width). x has the storage type, or the compute type if it
/// needs no gradient. `factor` is the caller's scale factor (of height, of width): if it is given,
/// it determines the coordinates instead of the ratio of the sizes, which may differ by their
/// rounding.
///
/// # Errors
/// Returns a shape error if a size is 0, the factor is not positive, or a gradient would be needed
/// in the compute type.
pub fn resize(
    tape: &Tape,
    x: &Tensor,
    size: (usize, usize),
    factor: Option<(f64, f64)>,
) -> Result<Tensor> {
    let plan = Plan::new("resize", x, size, factor)?;
    let device = tape.device();
    let mut y = device.alloc(&[plan.batch, size.0, size.1, plan.channels], x.dtype())?;
    if x.dtype() != device.operand() {
        if x.slot.is_some() {
            return Err(Error::shape(
                "resize",
                format!("{x:?} has an integer type, so it has no gradient"),
            ));
        }
        plan.forward_wide(device, x, &mut y, false)?;
        return Ok(y);
    }
    plan.forward(device, x, &mut y, 0)?;
    let slot = x.slot.clone();
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        gradients.write(&slot, |dx, accumulate| plan.backward(&device, &dy, 0, dx, accumulate))
    }))
}

/// Resizes feature maps to one size and concatenates their channels. Inputs: B,Hᵢ,Wᵢ,Cᵢ; output:
/// B,Ho,Wo,ΣCᵢ.
///
/// # Errors
/// Returns a shape error if the inputs differ in batch, or there are none.
pub fn resize_concat(tape: &Tape, inputs: &[Tensor], size: (usize, usize)) -> Result<Tensor> {
    let Some(first) = inputs.first() else {
        return Err(Error::shape("resize_concat", "there is nothing to concatenate"));
    };
    let mut plans = Vec::new();
    for x in inputs {
        let plan = Plan::new("resize_concat", x, size, None)?;
        if x.dim(0) != first.dim(0) {
            let problem = format!("{x:?} and {first:?} differ in batch");
            return Err(Error::shape("resize_concat", problem));
        }
        plans.push(plan);
    }
    let channels = plans.iter().map(|plan| plan.channels).sum();
    let device = tape.device();
    let mut y = device.alloc(&[first.dim(0), size.0, size.1, channels], first.dtype())?;
    let mut parts = Vec::new();
    let mut start = 0;
    for (x, plan) in inputs.iter().zip(plans) {
        plan.forward(device, x, &mut y, start)?;
        parts.push((x.slot.clone(), plan, start));
        start += plan.channels;
    }
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        for (slot, plan, start) in parts {
            gradients.write(&slot, |dx, accumulate| {
                plan.backward(&device, &dy, start, dx, accumulate)
            })?;
        }
        Ok(())
    }))
}

/// One resize, into some of the channels of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub batch: usize,
    pub size_in: (usize, usize),
    pub size_out: (usize, usize),
    pub channels: usize,
    /// Input pixels per output pixel (height, width).
    scale: (f64, f64),
}

impl Plan {
    pub fn new(
        op: &'static str,
        x: &Tensor,
        size_out: (usize, usize),
        factor: Option<(f64, f64)>,
    ) -> Result<Plan> {
        let [batch, height, width, channels] = x.bhwc(op)?;
        if [batch, height, width, channels, size_out.0, size_out.1].contains(&0) {
            let problem = format!("cannot resize {x:?} to {}x{}", size_out.0, size_out.1);
            return Err(Error::shape(op, problem));
        }
        let scale = match factor {
            Some((h, w)) if h > 0.0 && w > 0.0 => (1.0 / h, 1.0 / w),
            Some((h, w)) => {
                return Err(Error::shape(op, format!("factors {h}, {w} must be positive")));
            }
            None => (height as f64 / size_out.0 as f64, width as f64 / size_out.1 as f64),
        };
        Ok(Plan { batch, size_in: (height, width), size_out, channels, scale })
    }

    pub fn is_copy(&self) -> bool {
        self.size_in == self.size_out && self.scale == (1.0, 1.0)
    }

    fn forward(&self, device: &Device, x: &Tensor, y: &mut Tensor, start: usize) -> Result<()> {
        if self.is_copy() {
            return put_channels(device, x, y, start);
        }
        // Only these channels of y, which may have more than x, count as memory traffic.
        let grid = self.over_outputs(device).touching(x.bytes() + self.outputs(x));
        kernels::ResizeForward {
            x,
            pitch: y.channels(),
            y,
            batch: self.batch,
            height: self.size_in.0,
            width: self.size_in.1,
            channels: self.channels,
            out_height: self.size_out.0,
            out_width: self.size_out.1,
            first: start,
            scale_y: self.scale.0,
            scale_x: self.scale.1,
        }
        .launch(device, grid)
    }

    /// Resizes a tensor of the compute type, and adds the result to `y` with `accumulate`.
    pub fn forward_wide(
        &self,
        device: &Device,
        x: &Tensor,
        y: &mut Tensor,
        accumulate: bool,
    ) -> Result<()> {
        if self.is_copy() && !accumulate {
            return device.copy(x, y);
        }
        let grid = self.over_outputs(device);
        kernels::ResizeForwardWide {
            x,
            y,
            accumulate,
            batch: self.batch,
            height: self.size_in.0,
            width: self.size_in.1,
            channels: self.channels,
            out_height: self.size_out.0,
            out_width: self.size_out.1,
            pitch: self.channels,
            first: 0,
            scale_y: self.scale.0,
            scale_x: self.scale.1,
        }
        .launch(device, grid)
    }

    fn over_outputs(&self, device: &Device) -> Grid {
        let (rows, columns) = (self.batch * self.size_out.0, self.size_out.1);
        match self.channels {
            // Threads take the pixels of a row.
            PICTURE_CHANNELS => device.rows(rows, PICTURE_CHANNELS * columns),
            _ => lanes(device.rows(rows * columns, self.channels), self.channels),
        }
    }

    /// Returns the bytes of the resized maps, with elements of the type of x.
    fn outputs(&self, x: &Tensor) -> usize {
        let (h, w) = self.size_out;
        self.batch * h * w * self.channels * x.dtype().bytes()
    }

    pub fn backward(
        &self,
        device: &Device,
        dy: &Tensor,
        start: usize,
        dx: &mut Tensor,
        accumulate: bool,
    ) -> Result<()> {
        if self.is_copy() {
            return take_channels(device, dy, start, dx, accumulate);
        }
        let pixels = self.batch * self.size_in.0 * self.size_in.1;
        let outputs = self.size_out.0 * self.size_out.1 * 4 / (self.size_in.0 * self.size_in.1);
        // Each thread takes four channels.
        let rows = device.rows(pixels, self.channels * (outputs + 1));
        let grid = lanes(rows, self.channels.div_ceil(4))
            .shared((self.size_out.0 + self.size_out.1) * device.real().bytes())
            .touching(dx.bytes() + self.outputs(dx));
        kernels::ResizeBackward {
            dy,
            dx,
            accumulate,
            batch: self.batch,
            height: self.size_in.0,
            width: self.size_in.1,
            channels: self.channels,
            out_height: self.size_out.0,
            out_width: self.size_out.1,
            pitch: dy.channels(),
            first: start,
            scale_y: self.scale.0,
            scale_x: self.scale.1,
        }
        .launch(device, grid)
    }
}
