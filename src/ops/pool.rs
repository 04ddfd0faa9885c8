//! Max pooling.

use crate::device::constants::pool::{SIDE, STRIDE};
use crate::device::kernels;
use crate::tape::Tape;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::channels::lanes;

/// Returns the maximum over 3×3 windows with stride 2 and padding 1. x: B,H,W,C; result:
/// B,⌈H/2⌉,⌈W/2⌉,C.
pub fn max_pool(tape: &Tape, x: &Tensor) -> Result<Tensor> {
    let device = tape.device();
    let [batch, height, width, channels] = x.bhwc("max_pool")?;
    if height == 0 || width == 0 {
        return Err(Error::shape("max_pool", format!("{x:?} has no pixels")));
    }
    let (out_height, out_width) = (height.div_ceil(STRIDE), width.div_ceil(STRIDE));
    let shape = [batch, out_height, out_width, channels];
    let mut y = device.alloc(&shape, x.dtype())?;
    let learns = tape.is_recording() && x.slot.is_some();
    let mut tap = if learns { Some(device.alloc(&shape, DType::U8)?) } else { None };
    let grid = lanes(device.rows(batch * out_height * out_width, SIDE * SIDE * channels), channels);
    kernels::MaxPool {
        x,
        y: &mut y,
        tap: tap.as_mut(),
        batch,
        height,
        width,
        channels,
        out_height,
        out_width,
    }
    .launch(device, grid)?;
    let Some(tap) = tap else { return Ok(y) };
    let slot = x.slot.clone();
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        gradients.write(&slot, |dx, accumulate| {
            let grid = lanes(device.rows(batch * height * width, 3 * channels), channels);
            kernels::MaxPoolBackward {
                dy: &dy,
                tap: &tap,
                dx,
                accumulate,
                batch,
                height,
                width,
                channels,
                out_height,
                out_width,
            }
            .launch(&device, grid)
        })
    }))
}
