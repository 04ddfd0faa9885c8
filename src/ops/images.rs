//! Images from bytes to what networks see.

use crate::Result;
use crate::device::{Device, kernels};
use crate::tensor::Tensor;

/// Mean and standard deviation of ImageNet's pixels, RGB, that networks expect.
pub const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
pub const STD: [f32; 3] = [58.395, 57.12, 57.375];

/// Normalises images by the mean and the standard deviation of ImageNet's.
pub struct ImageNormalizer {
    /// [`MEAN`], [`STD`] and its inverse on the device.
    pub mean: Tensor,
    pub std: Tensor,
    pub inverse_std: Tensor,
}

impl ImageNormalizer {
    pub fn new(device: &Device) -> Result<ImageNormalizer> {
        let inverse = STD.map(|s| (1.0 / s as f64) as f32);
        Ok(ImageNormalizer {
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
        kernels::Normalize {
            x: rgb,
            extent,
            mean: &self.mean,
            inverse_std: &self.inverse_std,
            y: image,
            batch,
            height,
            width,
        }
        .launch(device, device.rows(batch * height, 3 * width))
    }
}
