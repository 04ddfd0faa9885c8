//! The segmentation loss.

use super::upsampled::{Upsampled, image};
use crate::device::{Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The result of [`cross_entropy`]; each tensor holds one number.
pub struct Loss {
    /// The mean over all pixels, where ignored ones count as 0. It is the only output with a
    /// gradient: the weight of a loss term is the gradient with which its backward pass starts.
    pub value: Tensor,
    /// The percentage of all pixels, ignored ones included, whose label is the argmax of the
    /// logits.
    pub accuracy: Tensor,
    /// The number of pixels whose label is neither a class nor 255; they are ignored.
    pub unknown: Tensor,
}

/// Returns the cross-entropy of logits B,h,w,C, upsampled bilinearly to the labels B,H,W. Each
/// pixel is multiplied by its weight B,H,W (1 without weights), and label 255 is ignored. Full-size
/// logits are never stored; the gradient is computed in the forward pass and kept at the size of
/// the logits.
///
/// # Errors
/// Returns a shape error if the shapes do not match, or there are more than 255 classes.
pub fn cross_entropy(
    tape: &Tape,
    logits: &Tensor,
    labels: &Tensor,
    weight: Option<&Tensor>,
) -> Result<Loss> {
    const OP: &str = "cross_entropy";
    let device = tape.device();
    let [batch, h, w, channels] = logits.bhwc(OP)?;
    let size = image(OP, labels, batch)?;
    if let Some(weight) = weight.filter(|weight| weight.shape() != labels.shape()) {
        return Err(Error::shape(OP, format!("weights {weight:?} for labels {labels:?}")));
    }
    let u = Upsampled::new(OP, device, logits, size)?;
    let (rows, pixels) = (batch * size.0, labels.len());
    let mut partial = device.empty(&[rows, 3])?;
    let wanted = tape.is_recording() && logits.slot.is_some();
    let mut row_gradient =
        if wanted { Some(device.empty(&[batch, size.0, w, channels])?) } else { None };
    kernels::CrossEntropyRows {
        logits,
        labels,
        weight,
        partial: &mut partial,
        row_gradient: row_gradient.as_mut(),
        batch,
        height: h,
        width: w,
        channels,
        out_height: size.0,
        out_width: size.1,
        ratio_y: u.ratio_y,
        ratio_x: u.ratio_x,
        run: u.run,
        cells: u.cells,
    }
    .launch(device, u.grid)?;
    let mut loss = Loss {
        value: device.empty(&[1])?,
        accuracy: device.empty(&[1])?,
        unknown: device.empty(&[1])?,
    };
    kernels::CrossEntropyFinal {
        partial: &partial,
        value: &mut loss.value,
        accuracy: &mut loss.accuracy,
        unknown: &mut loss.unknown,
        rows,
        pixels,
    }
    .launch(device, Grid::blocks(1))?;
    let Some(row_gradient) = row_gradient else { return Ok(loss) };

    let mut gradient = device.empty_like(logits)?;
    kernels::CrossEntropyGather {
        row_gradient: &row_gradient,
        gradient: &mut gradient,
        batch,
        height: h,
        out_height: size.0,
        row: w * channels,
        ratio_y: u.ratio_y,
        scale: 1.0 / pixels as f64,
    }
    .launch(device, device.rows(batch * h, w * channels))?;
    let slot = logits.slot.clone();
    loss.value = tape.record(loss.value, move |gradients, upstream| {
        let device = gradients.device().clone();
        let (elements, grid) = (gradient.len(), device.elements(gradient.len()));
        gradients.write(&slot, |dx, accumulate| {
            kernels::CrossEntropyBackward {
                gradient: &gradient,
                upstream: &upstream,
                dx,
                accumulate,
                elements,
            }
            .launch(&device, grid)
        })
    });
    Ok(loss)
}
