//! What an iteration learns from, on the device.

use crate::Result;
use crate::config::{Config, Method};
use crate::data::{Batch, Crops};
use crate::device::Device;
use crate::tensor::{DType, Tensor};

use super::augment::Pixels;
use super::mix::{Labelled, RareCrops};

/// A batch on the device.
#[derive(Clone)]
pub struct DeviceBatch {
    pub source: Labelled,
    /// B,H,W,3, normalised.
    pub target: Tensor,
    /// B,H,W: 1 where pseudo-labels may count.
    pub valid: Tensor,
    /// T→(SS), T→(ST); none before QuadMix.
    pub rare: Option<[RareCrops; 2]>,
}

/// Room for the batch of one iteration, at addresses that stay the same from step to step.
pub struct BatchRoom {
    batch: DeviceBatch,
    /// Pixels as bytes, B,H,W,3, and B,2: width and height that each image covers.
    source: (Tensor, Tensor),
    target: (Tensor, Tensor),
}

impl BatchRoom {
    pub fn new(device: &Device, config: &Config) -> Result<BatchRoom> {
        let (b, s) = (config.data.batch, config.data.crop);
        let targets = if config.method == Method::SourceOnly { 0 } else { b };
        let bytes = |shape: &[usize]| device.alloc(shape, DType::U8);
        let domain = |n: usize| -> Result<_> {
            Ok((bytes(&[n, s, s, 3])?, device.alloc(&[n, 2], DType::I32)?))
        };
        let rare = || -> Result<_> {
            let classes = bytes(&[2])?;
            let half = || -> Result<RareCrops> {
                let (rgb, label) = (bytes(&[b, 2, s, s, 3])?, bytes(&[b, 2, s, s])?);
                Ok(RareCrops { rgb, label, classes: classes.clone() })
            };
            Ok([half()?, half()?])
        };
        device.scope("batch", || {
            let image = device.empty(&[b, s, s, 3])?;
            let batch = DeviceBatch {
                source: Labelled { image, label: bytes(&[b, s, s])?, weight: None },
                target: device.empty(&[targets, s, s, 3])?,
                valid: bytes(&[targets, s, s])?,
                rare: (config.method == Method::Quadmix).then(rare).transpose()?,
            };
            Ok(BatchRoom { batch, source: domain(b)?, target: domain(targets)? })
        })
    }

    /// Uploads a batch and normalises it, in the place of the one before.
    pub fn fill(&mut self, device: &Device, pixels: &Pixels, batch: &Batch) -> Result<DeviceBatch> {
        let image = |(rgb, extent): &mut (Tensor, Tensor), crops: &Crops, image: &mut Tensor| {
            device.write(rgb, &crops.rgb)?;
            device.write(extent, &extents(crops))?;
            pixels.normalize_into(device, rgb, Some(extent), image)
        };
        let filled = &mut self.batch;
        image(&mut self.source, &batch.source, &mut filled.source.image)?;
        image(&mut self.target, &batch.target, &mut filled.target)?;
        device.write(&mut filled.source.label, &batch.source.label)?;
        device.write(&mut filled.valid, &batch.valid)?;
        if let (Some(rare), Some(halves)) = (&batch.rare, &mut filled.rare) {
            let part = |bytes: &[u8], half: usize| {
                let n = bytes.len() / 2;
                half * n..(half + 1) * n
            };
            for (half, crops) in halves.iter_mut().enumerate() {
                let RareCrops { rgb, label, classes } = crops;
                device.write(rgb, &rare.crops.rgb[part(&rare.crops.rgb, half)])?;
                device.write(label, &rare.crops.label[part(&rare.crops.label, half)])?;
                device.write(classes, &rare.classes)?;
            }
        }
        let rare = filled.rare.clone().filter(|_| batch.rare.is_some());
        Ok(DeviceBatch { rare, ..filled.clone() })
    }

    /// Whether it is this room's batch.
    pub fn holds(&self, batch: &DeviceBatch) -> bool {
        batch.source.image.address() == self.batch.source.image.address()
    }
}

/// B,2: width and height, all of the crop where nothing else is said.
fn extents(crops: &Crops) -> Vec<i32> {
    match crops.extent.as_slice() {
        [] => vec![crops.size as i32; 2 * crops.batch],
        some => some.iter().flatten().map(|&side| side as i32).collect(),
    }
}
