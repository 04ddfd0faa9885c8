//! Conversion of image bytes to the normalized input of networks.

use crate::Result;
use crate::device::{Device, kernels};
use crate::tensor::Tensor;

/// The mean of ImageNet's pixels (RGB), by which the inputs of networks are normalized.
pub const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
/// The standard deviation of ImageNet's pixels (RGB).
pub const STD: [f32; 3] = [58.395, 57.12, 57.375];

/// Normalizes images by the mean and standard deviation of ImageNet.
pub struct ImageNormalizer {
    /// [`MEAN`] on the device.
    pub mean: Tensor,
    /// [`STD`] on the device.
    pub std: Tensor,
    /// The inverse of [`STD`] on the device.
    pub inverse_std: Tensor,
}

/// Normalizes the values of pixels (RGB from 0 to 255) on the host, with the rounding of the
/// device's kernel in single precision.
pub fn normalized(rgb: &[f32]) -> impl Iterator<Item = f32> {
    let channels = (MEAN.into_iter().zip(INVERSE_STD)).cycle();
    rgb.iter().zip(channels).map(|(x, (mean, inverse))| (x - mean) * inverse)
}

/// The inverse of [`STD`].
const INVERSE_STD: [f32; 3] =
    [(1.0 / STD[0] as f64) as f32, (1.0 / STD[1] as f64) as f32, (1.0 / STD[2] as f64) as f32];

impl ImageNormalizer {
    /// Uploads the constants.
    pub fn new(device: &Device) -> Result<ImageNormalizer> {
        Ok(ImageNormalizer {
            mean: device.upload_real(&[3], &MEAN)?,
            std: device.upload_real(&[3], &STD)?,
            inverse_std: device.upload_real(&[3], &INVERSE_STD)?,
        })
    }

    /// Normalizes bytes B,H,W,3. `extent` is the width and height that each image covers, beyond
    /// which the padding becomes 0; if it is empty, images cover everything.
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

    /// Normalizes bytes into `image`, like [`normalize`](Self::normalize), with extents B,2 on the
    /// device.
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
