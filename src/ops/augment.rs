//! Colour jitter, blur and block masks.

use crate::Result;
use crate::device::{Device, Grid, kernels};
use crate::tensor::Tensor;

use super::images::ImageNormalizer;

/// Brings pixels to [0, 1], where colours are jittered.
pub(super) const UNIT: f64 = 1.0 / 255.0;

/// Numbers of jitter and blur for a batch.
pub struct Augmentation {
    /// Of brightness, contrast, saturation and hue: B,4.
    pub factors: Tensor,
    /// Which of the four comes first, second, …: B,4.
    pub order: Tensor,
    /// Of the blur: B.
    pub sigma: Tensor,
    /// Of jitter and blur.
    pub switches: Tensor,
}

/// Normalised images jittered and blurred, as far as the switches say.
pub fn augment(
    device: &Device,
    normalizer: &ImageNormalizer,
    image: &Tensor,
    a: &Augmentation,
) -> Result<Tensor> {
    let [batch, height, width, _] = image.bhwc("augment")?;
    let mut augmented = device.empty_like(image)?;
    kernels::ColorJitter {
        x: image,
        factors: &a.factors,
        order: &a.order,
        switches: &a.switches,
        mean: &normalizer.mean,
        std: &normalizer.std,
        y: &mut augmented,
        unit: UNIT,
        batch,
        pixels: height * width,
    }
    .launch(device, pixelwise(device, height * width))?;
    blur(device, &mut augmented, a)?;
    Ok(augmented)
}

/// Blurs images where the switch says so.
pub fn blur(device: &Device, image: &mut Tensor, a: &Augmentation) -> Result<()> {
    let [batch, height, width, _] = image.bhwc("blur")?;
    let weights = |side: usize| -> Result<(Tensor, usize)> {
        let half = blur_size(side) / 2;
        let mut weights = device.empty(&[batch, half + 1])?;
        kernels::BlurWeights { sigma: &a.sigma, weights: &mut weights, half }
            .launch(device, Grid::blocks(batch))?;
        Ok((weights, half))
    };
    let ((along, half_along), (down, half_down)) = (weights(width)?, weights(height)?);
    let mut rows = device.empty_like(image)?;
    let grid = device.rows(batch * height, 3 * width * 8);
    kernels::BlurRows {
        x: image,
        weights: &along,
        switches: &a.switches,
        y: &mut rows,
        half: half_along,
        batch,
        height,
        width,
    }
    .launch(device, grid)?;
    kernels::BlurColumns {
        x: &rows,
        weights: &down,
        switches: &a.switches,
        y: image,
        half: half_down,
        batch,
        height,
        width,
    }
    .launch(device, grid)
}

/// Blocks for a loop over an image's pixels: on a GPU each thread has one.
pub(super) fn pixelwise(device: &Device, pixels: usize) -> Grid {
    device.elements(4 * pixels)
}

/// Taps of the blur along a side of `n` pixels: odd, about a tenth of it.
pub fn blur_size(n: usize) -> usize {
    let tenth = (0.1 * n as f64).ceil();
    (tenth - 0.5 + tenth % 2.0).floor() as usize
}

/// `image` where the grid's number exceeds `ratio`, else 0. cells: B,gh,gw.
pub fn block_mask(
    device: &Device,
    image: &Tensor,
    cells: &Tensor,
    [grid_height, grid_width]: [usize; 2],
    ratio: f32,
) -> Result<Tensor> {
    let [batch, height, width, _] = image.bhwc("block_mask")?;
    let mut masked = device.empty_like(image)?;
    kernels::BlockMask {
        image,
        cells,
        masked: &mut masked,
        ratio: ratio.into(),
        batch,
        height,
        width,
        grid_height,
        grid_width,
    }
    .launch(device, device.rows(batch * height, 6 * width))?;
    Ok(masked)
}
