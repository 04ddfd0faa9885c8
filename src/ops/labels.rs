//! Labels: scaled down, and compared with predictions.

use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// Labels u8 B,H,W scaled down by an integer: for each scale×scale cell the value that most of its
/// pixels hold, if they are at least `min_share` of them, else 255. 255 votes like any value.
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

/// Counts pixels by label and prediction, on the device.
pub struct Confusion {
    device: Device,
    classes: usize,
    counts: Tensor,
}

/// What a [`Confusion`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionCounts {
    /// `pixels[label * classes + prediction]`
    pub pixels: Vec<i64>,
    pub classes: usize,
    /// Pixels counted nowhere: their label is neither a class nor 255, or their prediction is no
    /// class, as for logits that are NaN.
    pub odd: i64,
}

impl Confusion {
    pub fn new(device: &Device, classes: usize) -> Result<Confusion> {
        let counts = device.zeros(&[classes * classes + 1], DType::I64)?;
        Ok(Confusion { device: device.clone(), classes, counts })
    }

    /// Counts predictions against labels, both u8 and as many; label 255 is left out.
    pub fn add(&mut self, prediction: &Tensor, labels: &Tensor) -> Result<()> {
        /// Parts of the pixels that are counted apart.
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

    /// Waits for the device and reads the counts.
    pub fn read(&self) -> Result<ConfusionCounts> {
        let mut pixels: Vec<i64> = self.device.read(&self.counts)?;
        let odd = pixels.pop().unwrap_or(0);
        Ok(ConfusionCounts { pixels, classes: self.classes, odd })
    }
}
