//! Downscaling of labels, labels of pixels that count, and the confusion matrix of labels and predictions.

use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// Scales labels u8 B,H,W down by an integer: each scale×scale cell gets the value of most of its
/// pixels if they make up at least `min_share` of it, otherwise 255. 255 votes like any other
/// value.
///
/// # Errors
/// Returns a shape error if `labels` is not B,H,W, or is smaller than `scale`.
pub fn downscale_labels(
    device: &Device,
    labels: &Tensor,
    scale: usize,
    min_share: f64,
) -> Result<Tensor> {
    let &[batch, height, width] = labels.shape() else {
        let problem = format!("expected labels B,H,W, got {labels:?}");
        return Err(Error::shape("downscale_labels", problem));
    };
    if scale == 0 || height < scale || width < scale {
        let problem = format!("{labels:?} cannot be scaled down by {scale}");
        return Err(Error::shape("downscale_labels", problem));
    }
    let (h, w) = (height / scale, width / scale);
    let mut small = device.alloc(&[batch, h, w], DType::U8)?;
    kernels::DownscaleLabels { labels, small: &mut small, batch, height, width, scale, min_share }
        .launch(device, device.rows(batch * h * w, scale * scale))?;
    Ok(small)
}

/// Returns the labels u8 B,H,W, with 255 where the weight B,H,W is 0.
///
/// # Errors
/// Returns a shape error if the sizes differ.
pub fn ignore_unweighted(device: &Device, labels: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if labels.len() != weight.len() {
        let problem = format!("weights {weight:?} of labels {labels:?}");
        return Err(Error::shape("ignore_unweighted", problem));
    }
    let mut to = device.alloc(labels.shape(), DType::U8)?;
    let elements = labels.len();
    kernels::IgnoreUnweighted { label: labels, weight, to: &mut to, elements }
        .launch(device, device.elements(elements))?;
    Ok(to)
}

/// A confusion matrix on the device: the number of pixels for each label and prediction.
pub struct Confusion {
    device: Device,
    classes: usize,
    counts: Tensor,
}

/// The counts of a [`Confusion`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionCounts {
    /// The counts, indexed as `pixels[label * classes + prediction]`.
    pub pixels: Vec<i64>,
    /// The number of classes.
    pub classes: usize,
    /// The number of pixels left out because their label is neither a class nor 255, or their
    /// prediction is not a class (as for NaN logits).
    pub odd: i64,
}

impl Confusion {
    /// Creates a matrix of zeros.
    pub fn new(device: &Device, classes: usize) -> Result<Confusion> {
        let counts = device.zeros(&[classes * classes + 1], DType::I64)?;
        Ok(Confusion { device: device.clone(), classes, counts })
    }

    /// Adds the pixels of a prediction and its labels, both u8 of equal size; label 255 is ignored.
    ///
    /// # Errors
    /// Returns a shape error if the sizes differ.
    pub fn add(&mut self, prediction: &Tensor, labels: &Tensor) -> Result<()> {
        /// The maximum number of splits of the pixels, which are counted separately.
        const PARTS: usize = 64;
        if prediction.len() != labels.len() {
            let problem = format!("predictions {prediction:?} for labels {labels:?}");
            return Err(Error::shape("confusion", problem));
        }
        let (device, counters) = (&self.device, self.counts.len());
        let parts = labels.len().div_ceil(8 << 10).clamp(1, PARTS);
        let mut partial = device.alloc(&[parts, counters], DType::I32)?;
        let grid = Grid::blocks(parts);
        kernels::ConfusionPartial {
            prediction,
            labels,
            partial: &mut partial,
            classes: self.classes,
            pixels: labels.len(),
        }
        .launch(device, grid)?;
        let grid = device.elements(counters);
        kernels::ConfusionFinal { partial: &partial, counts: &mut self.counts, parts, counters }
            .launch(device, grid)
    }

    /// Waits for the device and returns the counts.
    pub fn read(&self) -> Result<ConfusionCounts> {
        let mut pixels: Vec<i64> = self.device.read(&self.counts)?;
        let odd = pixels.pop().unwrap_or(0);
        Ok(ConfusionCounts { pixels, classes: self.classes, odd })
    }
}
