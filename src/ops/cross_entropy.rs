//! The segmentation loss.

use super::upsampled::{Upsampled, picture};
use crate::device::{Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What [`cross_entropy`] returns; each holds one number.
pub struct Loss {
    /// Mean over all pixels, ignored ones counted as 0. The only one with a gradient: a term's
    /// weight is the gradient that the backward pass starts it with.
    pub value: Tensor,
    /// Percent of all pixels, ignored ones included, whose label is the arg-max.
    pub accuracy: Tensor,
    /// Pixels whose label is neither a class nor 255; they are ignored.
    pub unknown: Tensor,
}

/// Cross-entropy of logits B,h,w,C, upsampled bilinearly to the labels B,H,W, each pixel times its
/// weight B,H,W (1 without). Label 255 is ignored. Full-size logits are never stored; the gradient
/// is made in the same pass and kept at the logits' size.
pub fn cross_entropy(
    tape: &Tape,
    logits: &Tensor,
    labels: &Tensor,
    weight: Option<&Tensor>,
) -> Result<Loss> {
    const OP: &str = "cross_entropy";
    let device = tape.device();
    let [batch, h, w, channels] = logits.bhwc(OP)?;
    let size = picture(OP, labels, batch)?;
    if let Some(weight) = weight.filter(|weight| weight.shape() != labels.shape()) {
        return Err(Error::shape(OP, format!("weights {weight:?} for labels {labels:?}")));
    }
    let u = Upsampled::new(OP, device, logits, size)?;
    let (rows, pixels) = (batch * size.0, labels.len());
    let mut partial = device.empty(&[rows, 3])?;
    let wanted = tape.is_recording() && logits.slot.is_some();
    let mut slope = if wanted { Some(device.empty(&[batch, size.0, w, channels])?) } else { None };
    kernels::cross_entropy_rows(
        device,
        u.grid,
        logits,
        labels,
        weight,
        &mut partial,
        slope.as_mut(),
        u.batch,
        u.h,
        u.w,
        u.channels,
        u.height,
        u.width,
        u.ratio_y,
        u.ratio_x,
        u.run,
        u.cells,
    )?;
    let mut loss = Loss {
        value: device.empty(&[1])?,
        accuracy: device.empty(&[1])?,
        unknown: device.empty(&[1])?,
    };
    kernels::cross_entropy_final(
        device,
        Grid::blocks(1),
        &partial,
        &mut loss.value,
        &mut loss.accuracy,
        &mut loss.unknown,
        rows as i64,
        pixels as i64,
    )?;
    let Some(slope) = slope else { return Ok(loss) };

    let mut gradient = device.empty_like(logits)?;
    kernels::cross_entropy_gather(
        device,
        device.rows(batch * h, w * channels),
        &slope,
        &mut gradient,
        u.batch,
        u.h,
        u.height,
        u.w * u.channels,
        u.ratio_y,
        1.0 / pixels as f64,
    )?;
    let slot = logits.slot.clone();
    loss.value = tape.record(loss.value, move |gradients, upstream| {
        let device = gradients.device().clone();
        let (n, grid) = (gradient.len() as i64, device.elements(gradient.len()));
        gradients.write(&slot, |dx, accumulate| {
            let accumulate = accumulate as i32;
            kernels::cross_entropy_backward(&device, grid, &gradient, &upstream, dx, accumulate, n)
        })
    });
    Ok(loss)
}
