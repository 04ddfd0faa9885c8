//! Per-pixel decisions: predictions and the teacher's pseudo-labels.

use super::upsampled::Upsampled;
use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// The softmax probabilities from which the teacher is trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confidence {
    /// The probability from which a pixel counts towards the batch's weight; 0.968 by default.
    pub counted: f64,
    /// The probability from which a pixel may be pasted as part of a template; 0.9 by default.
    pub confident: f64,
}

impl Default for Confidence {
    fn default() -> Self {
        Confidence { counted: 0.968, confident: 0.9 }
    }
}

/// The teacher's pseudo-labels for images B,H,W.
pub struct PseudoLabels {
    /// The class with the largest logit, u8 B,H,W; the first of equal ones, or 255 if a logit is
    /// NaN.
    pub label: Tensor,
    /// Flags of the pixels whose probability reaches [`Confidence::confident`], u8 B,H,W.
    pub confident: Tensor,
    /// The weight of each pixel, B,H,W: `share` if the pixel is valid, else 0.
    pub weight: Tensor,
    /// The fraction of all pixels of the whole batch (of all processes), valid or not, that reaches
    /// [`Confidence::counted`]; one element.
    pub share: Tensor,
    /// The largest softmax probability, B,H,W, if requested.
    pub probability: Option<Tensor>,
}

/// Returns pseudo-labels from logits B,h,w,C upsampled bilinearly to `size` (H, W). valid: u8
/// B,H,W. `probability` requests [`PseudoLabels::probability`].
///
/// # Errors
/// Returns a shape error if the shapes do not match, or there are more than 255 classes.
pub fn pseudo_labels(
    device: &Device,
    logits: &Tensor,
    size: (usize, usize),
    valid: Option<&Tensor>,
    confidence: Confidence,
    probability: bool,
) -> Result<PseudoLabels> {
    const OP: &str = "pseudo_labels";
    let batch = logits.bhwc(OP)?[0];
    let shape = [batch, size.0, size.1];
    if let Some(valid) = valid.filter(|valid| valid.shape() != shape) {
        return Err(Error::shape(OP, format!("valid mask {valid:?} for images {shape:?}")));
    }
    let (rows, pixels) = (batch * size.0, shape.iter().product::<usize>());
    let mut labels = PseudoLabels {
        label: device.alloc(&shape, DType::U8)?,
        confident: device.alloc(&shape, DType::U8)?,
        weight: device.empty(&shape)?,
        share: device.empty(&[1])?,
        probability: if probability { Some(device.empty(&shape)?) } else { None },
    };
    let mut counts = device.empty(&[rows])?;
    let asked = Asked {
        probability: labels.probability.as_mut(),
        confident: Some(&mut labels.confident),
        counts: Some(&mut counts),
    };
    classify(OP, device, logits, size, &mut labels.label, asked, confidence)?;
    let counts = device.gather(&counts)?;
    kernels::PseudoShare {
        counts: &counts,
        share: &mut labels.share,
        rows: counts.len(),
        pixels: pixels * device.place().size,
    }
    .launch(device, Grid::blocks(1))?;
    let grid = device.elements(pixels);
    kernels::PseudoWeight {
        share: &labels.share,
        valid,
        weight: &mut labels.weight,
        elements: pixels,
    }
    .launch(device, grid)?;
    Ok(labels)
}

/// Returns the class of every pixel, u8 B,H,W: the argmax of the logits B,h,w,C resized bilinearly
/// to `size` (H, W), where the first of equal ones wins; 255 if a logit is NaN.
pub fn predict(device: &Device, logits: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    const OP: &str = "predict";
    let mut label = device.alloc(&[logits.bhwc(OP)?[0], size.0, size.1], DType::U8)?;
    classify(OP, device, logits, size, &mut label, Asked::default(), Confidence::default())?;
    Ok(label)
}

/// The optional outputs of the kernel in addition to the class.
#[derive(Default)]
struct Asked<'a> {
    probability: Option<&'a mut Tensor>,
    confident: Option<&'a mut Tensor>,
    counts: Option<&'a mut Tensor>,
}

fn classify(
    op: &'static str,
    device: &Device,
    logits: &Tensor,
    size: (usize, usize),
    label: &mut Tensor,
    asked: Asked,
    confidence: Confidence,
) -> Result<()> {
    let u = Upsampled::new(op, device, logits, size)?;
    kernels::ClassifyRows {
        logits,
        label,
        probability: asked.probability,
        confident: asked.confident,
        counts: asked.counts,
        batch: u.batch,
        height: u.height,
        width: u.width,
        channels: u.channels,
        out_height: size.0,
        out_width: size.1,
        ratio_y: u.ratio_y,
        ratio_x: u.ratio_x,
        run: u.run,
        cells: u.cells,
        confident_from: confidence.confident,
        counted_from: confidence.counted,
    }
    .launch(device, u.grid)
}
