//! The training batch on the device.

use bytemuck::cast_slice;

use crate::config::Config;
use crate::data::{Batch, Crops};
use crate::device::{Device, StagingBuffers};
use crate::ops::ImageNormalizer;
use crate::ops::mix::{Labeled, RareCrops};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// A batch on the device.
#[derive(Clone)]
pub struct DeviceBatch {
    /// Source images with their labels.
    pub source: Labeled,
    /// Target images, B,H,W,3, normalized.
    pub target: Tensor,
    /// B,H,W: 1 where pseudo-labels count.
    pub valid: Tensor,
    /// Long-tail crops for the mixed images over the source and over the target; None when the
    /// iteration does not use QuadMix.
    pub rare: Option<[RareCrops; 2]>,
}

/// A batch to load, in host or device memory.
pub enum BatchSource<'a> {
    /// A batch from the data loader in host memory. It is uploaded and normalized.
    Host(&'a Batch),
    /// A batch in device memory that the caller owns. It is copied, because a CUDA graph reads from
    /// fixed addresses.
    Device(&'a DeviceBatch),
}

impl<'a> From<&'a Batch> for BatchSource<'a> {
    fn from(batch: &'a Batch) -> Self {
        BatchSource::Host(batch)
    }
}

impl<'a> From<&'a DeviceBatch> for BatchSource<'a> {
    fn from(batch: &'a DeviceBatch) -> Self {
        BatchSource::Device(batch)
    }
}

/// The current batch, at addresses that do not change between steps.
pub struct BatchBuffers {
    contents: DeviceBatch,
    /// Whether the current batch includes long-tail crops.
    has_rare: bool,
    /// Staging buffers that receive the next batch while the current one is in use. For the source
    /// and then the target: pixels as bytes, B,H,W,3; width and height that each image covers, B,2;
    /// labels or validity mask, B,H,W. The long-tail crops follow.
    staging: StagingBuffers,
}

impl BatchBuffers {
    /// Allocates buffers for this process's share of the batch, and for the crop size and method of
    /// `config`.
    pub fn new(device: &Device, config: &Config) -> Result<BatchBuffers> {
        let (b, s) = (device.place().slots(config.data.batch)?.count, config.data.crop);
        let targets = if config.learns_from_target() { b } else { 0 };
        let [width, height] = config.target_size();
        let [source, target] = [(b, s, s), (targets, height, width)]
            .map(|(n, h, w)| ([n, h, w, 3], [n, 2], [n, h, w]));
        let (crops, crop_labels) = ([b, 2, s, s, 3], [b, 2, s, s]);
        let mut parts: Vec<(&[usize], DType)> = Vec::new();
        for (rgb, extent, map) in [&source, &target] {
            parts.extend([(&rgb[..], DType::U8), (&extent[..], DType::I32), (&map[..], DType::U8)]);
        }
        if config.quadmix.enabled {
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
            let contents = DeviceBatch {
                source: Labeled { image, label, weight: None },
                target: device.empty(&target.0)?,
                valid: bytes(&target.2)?,
                rare: config.quadmix.enabled.then(rare).transpose()?,
            };
            Ok(BatchBuffers {
                contents,
                has_rare: false,
                staging: StagingBuffers::new(device, &parts)?,
            })
        })
    }

    /// Returns the current batch. Its tensors alias the buffers, so loading the next batch
    /// overwrites them.
    pub fn current(&self) -> DeviceBatch {
        let rare = self.contents.rare.clone().filter(|_| self.has_rare);
        DeviceBatch { rare, ..self.contents.clone() }
    }

    /// Returns whether the current batch includes long-tail crops.
    pub fn has_rare(&self) -> bool {
        self.has_rare
    }

    /// Loads a batch, which becomes the current one.
    ///
    /// # Errors
    /// The shapes of the batch differ from those of the buffers, or the device fails.
    pub fn load(
        &mut self,
        device: &Device,
        normalizer: &ImageNormalizer,
        batch: BatchSource,
    ) -> Result<()> {
        let has_rare = match batch {
            BatchSource::Host(batch) => {
                self.upload(device, normalizer, batch)?;
                batch.rare.is_some()
            }
            BatchSource::Device(batch) => {
                self.copy(device, batch)?;
                batch.rare.is_some()
            }
        };
        self.has_rare = has_rare && self.contents.rare.is_some();
        Ok(())
    }

    /// Uploads a batch and normalizes it.
    fn upload(
        &mut self,
        device: &Device,
        normalizer: &ImageNormalizer,
        batch: &Batch,
    ) -> Result<()> {
        let extents = [extents(&batch.source), extents(&batch.target)];
        let [of_source, of_target] = extents.each_ref().map(|extents| cast_slice(extents));
        let mut data: Vec<&[u8]> = vec![&batch.source.rgb, of_source, &batch.source.label];
        data.extend([&batch.target.rgb[..], of_target, &batch.valid]);
        let contents = &mut self.contents;
        let rare = contents.rare.as_mut().filter(|_| batch.rare.is_some());
        if let (Some(_), Some(new)) = (&rare, &batch.rare) {
            for plane in [&new.crops.rgb, &new.crops.label] {
                let (first, second) = plane.split_at(plane.len() / 2);
                data.extend([first, second]);
            }
            data.push(&new.classes);
        }
        self.staging.upload(&data, |arrived| {
            let (image, target) = (&mut contents.source.image, &mut contents.target);
            normalizer.normalize_into(device, &arrived[0], Some(&arrived[1]), image)?;
            device.copy(&arrived[2], &mut contents.source.label)?;
            normalizer.normalize_into(device, &arrived[3], Some(&arrived[4]), target)?;
            device.copy(&arrived[5], &mut contents.valid)?;
            for (half, crops) in rare.into_iter().flatten().enumerate() {
                device.copy(&arrived[6 + half], &mut crops.rgb)?;
                device.copy(&arrived[8 + half], &mut crops.label)?;
                device.copy(&arrived[10], &mut crops.classes)?;
            }
            Ok(())
        })
    }

    fn copy(&mut self, device: &Device, batch: &DeviceBatch) -> Result<()> {
        let contents = &mut self.contents;
        let mut places = vec![
            ("source.image", &batch.source.image, &mut contents.source.image),
            ("source.label", &batch.source.label, &mut contents.source.label),
            ("target", &batch.target, &mut contents.target),
            ("valid", &batch.valid, &mut contents.valid),
        ];
        for (new, old) in batch.rare.iter().flatten().zip(contents.rare.iter_mut().flatten()) {
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
        places.into_iter().try_for_each(|(_, new, old)| device.copy(new, old))
    }
}

/// Returns the width and height that each image covers, B,2. A crop without an extent is covered
/// completely.
fn extents(crops: &Crops) -> Vec<i32> {
    match crops.extent.as_slice() {
        [] => [crops.size.width as i32, crops.size.height as i32].repeat(crops.batch),
        some => some.iter().flatten().map(|&side| side as i32).collect(),
    }
}
