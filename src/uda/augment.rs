//! Colour jitter, blur and block masks.

use crate::Result;
use crate::device::{Device, Grid, kernels};
use crate::tensor::Tensor;

/// Brings pixels to [0, 1], where colours are jittered.
pub(super) const UNIT: f64 = 1.0 / 255.0;

/// Mean and standard deviation of ImageNet's pixels, RGB, that networks expect.
pub const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
pub const STD: [f32; 3] = [58.395, 57.12, 57.375];

/// The constants above on the device.
pub struct Pixels {
    pub mean: Tensor,
    pub std: Tensor,
    pub inverse_std: Tensor,
}

/// Numbers of jitter and blur for a batch: see [`super::inputs::ImageAugment`].
pub struct Augmentation {
    /// B,4
    pub factors: Tensor,
    pub order: Tensor,
    /// B
    pub sigma: Tensor,
    /// jitter, blur
    pub switches: Tensor,
}

impl Pixels {
    pub fn new(device: &Device) -> Result<Pixels> {
        let inverse = STD.map(|s| (1.0 / s as f64) as f32);
        Ok(Pixels {
            mean: device.upload_real(&[3], &MEAN)?,
            std: device.upload_real(&[3], &STD)?,
            inverse_std: device.upload_real(&[3], &inverse)?,
        })
    }

    /// Bytes B,H,W,3 to what networks see. `extent`: width and height that each image covers; the
    /// padding beyond becomes 0. Empty: all of it.
    pub fn normalize(&self, device: &Device, rgb: &Tensor, extent: &[[u32; 2]]) -> Result<Tensor> {
        let batch = rgb.dim(0);
        let extent = match extent {
            [] => None,
            _ => {
                let sides: Vec<i32> = extent.iter().flatten().map(|&side| side as i32).collect();
                Some(device.upload(&[batch, 2], &sides)?)
            }
        };
        let mut image = device.empty(rgb.shape())?;
        self.normalize_into(device, rgb, extent.as_ref(), &mut image)?;
        Ok(image)
    }

    /// As [`normalize`](Self::normalize), with extents on the device, B,2.
    pub fn normalize_into(
        &self,
        device: &Device,
        rgb: &Tensor,
        extent: Option<&Tensor>,
        image: &mut Tensor,
    ) -> Result<()> {
        let [batch, height, width, _] = rgb.bhwc("normalize")?;
        let grid = device.rows(batch * height, 3 * width);
        let (mean, inverse) = (&self.mean, &self.inverse_std);
        let (b, h, w) = (batch as i64, height as i64, width as i64);
        kernels::normalize(device, grid, rgb, extent, mean, inverse, image, b, h, w)
    }

    /// Normalised images jittered and blurred, as far as the switches say.
    pub fn augment(&self, device: &Device, image: &Tensor, a: &Augmentation) -> Result<Tensor> {
        let [batch, height, width, _] = image.bhwc("augment")?;
        let mut augmented = device.empty_like(image)?;
        kernels::color_jitter(
            device,
            pixelwise(device, height * width),
            image,
            &a.factors,
            &a.order,
            &a.switches,
            &self.mean,
            &self.std,
            &mut augmented,
            UNIT,
            batch as i64,
            (height * width) as i64,
        )?;
        self.blur(device, &mut augmented, a)?;
        Ok(augmented)
    }

    /// Blurs images where the switch says so.
    pub fn blur(&self, device: &Device, image: &mut Tensor, a: &Augmentation) -> Result<()> {
        let [batch, height, width, _] = image.bhwc("blur")?;
        let (b, h, w) = (batch as i64, height as i64, width as i64);
        let weights = |side: usize| -> Result<(Tensor, i64)> {
            let half = blur_size(side) / 2;
            let mut weights = device.empty(&[batch, half + 1])?;
            let grid = Grid::blocks(batch);
            kernels::blur_weights(device, grid, &a.sigma, &mut weights, half as i64)?;
            Ok((weights, half as i64))
        };
        let ((along, half_w), (down, half_h)) = (weights(width)?, weights(height)?);
        let mut rows = device.empty_like(image)?;
        let grid = device.rows(batch * height, 3 * width * 8);
        let s = &a.switches;
        kernels::blur_rows(device, grid, image, &along, s, &mut rows, half_w, b, h, w)?;
        kernels::blur_columns(device, grid, &rows, &down, s, image, half_h, b, h, w)
    }
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
    [cells_h, cells_w]: [usize; 2],
    ratio: f32,
) -> Result<Tensor> {
    let [batch, height, width, _] = image.bhwc("block_mask")?;
    let mut masked = device.empty_like(image)?;
    let grid = device.rows(batch * height, 6 * width);
    let (b, h, w) = (batch as i64, height as i64, width as i64);
    let (cells_h, cells_w) = (cells_h as i64, cells_w as i64);
    let ratio = ratio as f64;
    kernels::block_mask(device, grid, image, cells, &mut masked, ratio, b, h, w, cells_h, cells_w)?;
    Ok(masked)
}
