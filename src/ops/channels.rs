//! Operations on whole channels: concatenation and dropout.

use crate::device::group::Slots;
use crate::device::{Device, Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Concatenates tensors along the channels. Inputs: …,Cᵢ; output: …,ΣCᵢ.
///
/// # Errors
/// Returns a shape error if the inputs differ in another dimension, or there are none.
pub fn concat(tape: &Tape, inputs: &[Tensor]) -> Result<Tensor> {
    let Some(first) = inputs.first() else {
        return Err(Error::shape("concat", "there is nothing to concatenate"));
    };
    let leading = |x: &Tensor| x.shape().split_last().map(|(_, leading)| leading.to_vec());
    if let Some(x) = inputs.iter().find(|x| leading(x) != leading(first)) {
        let problem = format!("{x:?} and {first:?} differ in more than their channels");
        return Err(Error::shape("concat", problem));
    }
    let device = tape.device();
    let mut shape = first.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = inputs.iter().map(Tensor::channels).sum();
    }
    let mut y = device.alloc(&shape, first.dtype())?;
    let mut parts = Vec::new();
    let mut start = 0;
    for x in inputs {
        put_channels(device, x, &mut y, start)?;
        parts.push((x.slot.clone(), start));
        start += x.channels();
    }
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        for (slot, start) in parts {
            gradients.write(&slot, |dx, accumulate| {
                take_channels(&device, &dy, start, dx, accumulate)
            })?;
        }
        Ok(())
    }))
}

/// Drops whole channels of each sample with probability `p` and scales the others by 1/(1-p). x:
/// B,…,C. The dropped channels are a function of `key` (one number in device memory), `stream` and the
/// samples' slots; a batch of several passes has the slots once for each.
///
/// # Errors
/// Returns a shape error if `p` is not in [0, 1), `key` is not a single number, or `x` has fewer
/// than two dimensions.
pub fn dropout2d(
    tape: &Tape,
    x: &Tensor,
    p: f64,
    key: &Tensor,
    stream: usize,
    slots: Slots,
) -> Result<Tensor> {
    if !(0.0..1.0).contains(&p) {
        return Err(Error::shape("dropout2d", format!("probability {p} is not in [0, 1)")));
    }
    if key.len() != 1 || x.shape().len() < 2 {
        let problem = format!("expected an input B,…,C and one key, got {x:?} and {key:?}");
        return Err(Error::shape("dropout2d", problem));
    }
    if p == 0.0 {
        return Ok(x.clone());
    }
    let device = tape.device();
    let [batch, channels] = [x.dim(0), x.channels()];
    let mut mask = device.empty(&[batch, channels])?;
    kernels::ChannelMask {
        key,
        mask: &mut mask,
        batch,
        channels,
        probability: p,
        stream,
        first_slot: slots.first,
        slots: slots.count,
        all_slots: slots.all,
    }
    .launch(device, device.elements(batch * channels))?;
    let mut y = device.empty_like(x)?;
    scale_channels(device, x, &mask, &mut y, false)?;
    let slot = x.slot.clone();
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        gradients.write(&slot, |dx, accumulate| scale_channels(&device, &dy, &mask, dx, accumulate))
    }))
}

fn scale_channels(
    device: &Device,
    x: &Tensor,
    mask: &Tensor,
    y: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let [batch, channels] = [mask.dim(0), mask.dim(1)];
    let pixels = x.len() / (batch * channels).max(1);
    let grid = lanes(device.rows(batch * pixels, channels), channels);
    kernels::ScaleChannels { x, mask, y, accumulate, batch, pixels, channels }.launch(device, grid)
}

/// Writes x to the channels from `start` on of a wider tensor with the same number of pixels.
pub(super) fn put_channels(
    device: &Device,
    x: &Tensor,
    wide: &mut Tensor,
    start: usize,
) -> Result<()> {
    let (rows, channels) = within(x, wide, start)?;
    kernels::MoveChannels {
        x,
        x_pitch: channels,
        x_first: 0,
        y_pitch: wide.channels(),
        y_first: start,
        y: wide,
        accumulate: false,
        rows,
        channels,
    }
    .launch(device, moving(device, x))
}

/// Copies the channels from `start` on of a wider tensor to x, as many as x has: the inverse of
/// [`put_channels`].
pub(super) fn take_channels(
    device: &Device,
    wide: &Tensor,
    start: usize,
    x: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let (rows, channels) = within(x, wide, start)?;
    let grid = moving(device, x);
    kernels::MoveChannels {
        x: wide,
        x_pitch: wide.channels(),
        x_first: start,
        y: x,
        y_pitch: channels,
        y_first: 0,
        accumulate,
        rows,
        channels,
    }
    .launch(device, grid)
}

/// Returns the rows and channels of `x`, after checking that they fit into the wider tensor from
/// channel `start` on.
fn within(x: &Tensor, wide: &Tensor, start: usize) -> Result<(usize, usize)> {
    let (rows, channels) = (x.rows(), x.channels());
    if start + channels > wide.channels() {
        let problem = format!("{x:?} from channel {start} on of {wide:?}");
        return Err(Error::shape("move_channels", problem));
    }
    Ok((rows, channels))
}

/// Returns the grid that copies the channels of `x`, and reports only those as memory traffic.
fn moving(device: &Device, x: &Tensor) -> Grid {
    lanes(device.rows(x.rows(), x.channels()), x.channels()).touching(2 * x.bytes())
}

/// Sets the threads per block to the width of the inner loop, within limits, so that none are idle.
pub(super) fn lanes(grid: Grid, width: usize) -> Grid {
    grid.threads((width.div_ceil(32) * 32).clamp(32, 256) as u32)
}
