//! Color jitter, Gaussian blur and block masks.

use crate::Result;
use crate::device::{Device, Grid, kernels};
use crate::tensor::Tensor;

use super::images::ImageNormalizer;

/// Scales pixels to [0, 1], the range in which color jitter works.
pub(super) const UNIT: f64 = 1.0 / 255.0;

/// The parameters of color jitter and blur for a batch, on the device.
pub struct Augmentation {
    /// The factors of brightness, contrast, saturation and hue: B,4.
    pub factors: Tensor,
    /// The order in which the four operations are applied: B,4.
    pub order: Tensor,
    /// The sigma of the blur: B.
    pub sigma: Tensor,
    /// Flags that enable jitter and blur: 2.
    pub switches: Tensor,
}

/// Applies color jitter and blur to normalized images, each if its switch is on.
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

/// Blurs images in place if the switch is on.
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

/// Returns the grid of a loop over an image's pixels; on a GPU each thread takes one.
pub(super) fn pixelwise(device: &Device, pixels: usize) -> Grid {
    device.elements(4 * pixels)
}

/// Returns the number of blur taps along a side of `n` pixels: odd, and about a tenth of it.
pub fn blur_size(n: usize) -> usize {
    let tenth = (0.1 * n as f64).ceil();
    (tenth - 0.5 + tenth % 2.0).floor() as usize
}

/// Returns `image` where the number of the mask cell exceeds `ratio`, and 0 elsewhere (masked image
/// consistency). cells: B,gh,gw.
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
