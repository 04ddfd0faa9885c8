//! What an iteration learns from, on the device.

use bytemuck::cast_slice;

use crate::config::{Config, Method};
use crate::data::{Batch, Crops};
use crate::device::{Device, Inlet};
use crate::ops::mix::{Labelled, RareCrops};
use crate::ops::{ImageNormalizer, PseudoLabels, commit};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

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

/// The previous iteration's images, which QuadMix pastes from.
pub struct Templates {
    pub source: Labelled,
    pub target: Labelled,
    /// B,H,W: where the teacher was confident.
    pub confident: Tensor,
    /// The iteration they are from.
    pub iteration: Option<u64>,
}

/// Room for the batch of one iteration, at addresses that stay the same from step to step.
pub struct BatchRoom {
    batch: DeviceBatch,
    /// Where the next one arrives meanwhile. Of the source and the target: pixels as bytes, B,H,W,3,
    /// and B,2, the width and height that each image covers; labels and validity; long-tail crops.
    inlet: Inlet,
}

impl BatchRoom {
    pub fn new(device: &Device, config: &Config) -> Result<BatchRoom> {
        let (b, s) = (config.data.batch, config.data.crop);
        let targets = if config.method == Method::SourceOnly { 0 } else { b };
        let [source, target] = [b, targets].map(|n| ([n, s, s, 3], [n, 2], [n, s, s]));
        let (crops, crop_labels) = ([b, 2, s, s, 3], [b, 2, s, s]);
        let mut parts: Vec<(&[usize], DType)> = Vec::new();
        for (rgb, extent, map) in [&source, &target] {
            parts.extend([(&rgb[..], DType::U8), (&extent[..], DType::I32), (&map[..], DType::U8)]);
        }
        if config.method == Method::Quadmix {
            parts.extend([(&crops[..], DType::U8); 2]);
            parts.extend([(&crop_labels[..], DType::U8); 2]);
            parts.push((&[2], DType::U8));
        }
        device.scope("batch", || {
            let bytes = |shape: &[usize]| device.alloc(shape, DType::U8);
            let classes = bytes(&[2])?;
            let half = || -> Result<RareCrops> {
                let (rgb, label) = (bytes(&crops)?, bytes(&crop_labels)?);
                Ok(RareCrops { rgb, label, classes: classes.clone() })
            };
            let rare = || Ok::<_, Error>([half()?, half()?]);
            let (image, label) = (device.empty(&source.0)?, bytes(&source.2)?);
            let batch = DeviceBatch {
                source: Labelled { image, label, weight: None },
                target: device.empty(&target.0)?,
                valid: bytes(&target.2)?,
                rare: (config.method == Method::Quadmix).then(rare).transpose()?,
            };
            Ok(BatchRoom { batch, inlet: Inlet::new(device, &parts)? })
        })
    }

    /// Uploads a batch and normalises it, in the place of the one before.
    pub fn fill(
        &mut self,
        device: &Device,
        normalizer: &ImageNormalizer,
        batch: &Batch,
    ) -> Result<DeviceBatch> {
        let extents = [extents(&batch.source), extents(&batch.target)];
        let [of_source, of_target] = extents.each_ref().map(|extents| cast_slice(extents));
        let mut data: Vec<&[u8]> = vec![&batch.source.rgb, of_source, &batch.source.label];
        data.extend([&batch.target.rgb[..], of_target, &batch.valid]);
        let filled = &mut self.batch;
        let rare = filled.rare.as_mut().filter(|_| batch.rare.is_some());
        if let (Some(_), Some(new)) = (&rare, &batch.rare) {
            for plane in [&new.crops.rgb, &new.crops.label] {
                let (first, second) = plane.split_at(plane.len() / 2);
                data.extend([first, second]);
            }
            data.push(&new.classes);
        }
        self.inlet.take_in(&data, |arrived| {
            let (image, target) = (&mut filled.source.image, &mut filled.target);
            normalizer.normalize_into(device, &arrived[0], Some(&arrived[1]), image)?;
            device.copy(&arrived[2], &mut filled.source.label)?;
            normalizer.normalize_into(device, &arrived[3], Some(&arrived[4]), target)?;
            device.copy(&arrived[5], &mut filled.valid)?;
            for (half, crops) in rare.into_iter().flatten().enumerate() {
                device.copy(&arrived[6 + half], &mut crops.rgb)?;
                device.copy(&arrived[8 + half], &mut crops.label)?;
                device.copy(&arrived[10], &mut crops.classes)?;
            }
            Ok(())
        })?;
        let rare = filled.rare.clone().filter(|_| batch.rare.is_some());
        Ok(DeviceBatch { rare, ..filled.clone() })
    }

    /// Copies a batch that lies on the device already into the place of the one before.
    pub fn copy(&mut self, device: &Device, batch: &DeviceBatch) -> Result<DeviceBatch> {
        let filled = &mut self.batch;
        let rare = filled.rare.clone().filter(|_| batch.rare.is_some());
        let mut places = vec![
            ("source.image", &batch.source.image, &mut filled.source.image),
            ("source.label", &batch.source.label, &mut filled.source.label),
            ("target", &batch.target, &mut filled.target),
            ("valid", &batch.valid, &mut filled.valid),
        ];
        for (new, old) in batch.rare.iter().flatten().zip(filled.rare.iter_mut().flatten()) {
            places.push(("rare.rgb", &new.rgb, &mut old.rgb));
            places.push(("rare.label", &new.label, &mut old.label));
            places.push(("rare.classes", &new.classes, &mut old.classes));
        }
        if let Some((name, new, old)) = places
            .iter()
            .find(|(_, new, old)| (new.shape(), new.dtype()) != (old.shape(), old.dtype()))
        {
            return Err(Error::shape("batch", format!("{name} is {new:?}, not {old:?}")));
        }
        for (_, new, old) in places {
            device.copy(new, old)?;
        }
        Ok(DeviceBatch { rare, ..filled.clone() })
    }

    /// Whether it is this room's batch.
    pub fn holds(&self, batch: &DeviceBatch) -> bool {
        batch.source.image.address() == self.batch.source.image.address()
    }
}

impl Templates {
    pub fn new(device: &Device, config: &Config) -> Result<Templates> {
        // Only QuadMix looks back.
        let batch = if config.method == Method::Quadmix { config.data.batch } else { 0 };
        let side = config.data.crop;
        let labelled = |weight: Option<Tensor>| {
            Ok::<_, Error>(Labelled {
                image: device.zeros(&[batch, side, side, 3], device.real())?,
                label: device.zeros(&[batch, side, side], DType::U8)?,
                weight,
            })
        };
        let weight = device.zeros(&[batch, side, side], device.real())?;
        Ok(Templates {
            source: labelled(None)?,
            target: labelled(Some(weight))?,
            confident: device.zeros(&[batch, side, side], DType::U8)?,
            iteration: None,
        })
    }

    /// The tensors by the names that checkpoints give them.
    pub fn named(&mut self) -> Vec<(&'static str, &mut Tensor)> {
        let mut all = vec![
            ("templates.source.image", &mut self.source.image),
            ("templates.source.label", &mut self.source.label),
            ("templates.target.image", &mut self.target.image),
            ("templates.target.label", &mut self.target.label),
            ("templates.confident", &mut self.confident),
        ];
        all.extend(self.target.weight.as_mut().map(|w| ("templates.target.weight", w)));
        all
    }

    /// Makes a batch the templates, unless the step failed.
    pub fn replace(
        &mut self,
        device: &Device,
        batch: &DeviceBatch,
        pseudo: PseudoLabels,
        failed: &Tensor,
    ) -> Result<()> {
        if self.confident.is_empty() {
            return Ok(());
        }
        let news = [
            &batch.source.image,
            &batch.source.label,
            &batch.target,
            &pseudo.label,
            &pseudo.confident,
            &pseudo.weight,
        ];
        for ((_, old), new) in self.named().into_iter().zip(news) {
            commit(device, new, old, failed)?;
        }
        Ok(())
    }
}

/// B,2: width and height, all of the crop where nothing else is said.
fn extents(crops: &Crops) -> Vec<i32> {
    match crops.extent.as_slice() {
        [] => vec![crops.size as i32; 2 * crops.batch],
        some => some.iter().flatten().map(|&side| side as i32).collect(),
    }
}
