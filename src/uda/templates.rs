//! Images of the previous iteration, from which QuadMix pastes.

use crate::config::Config;
use crate::device::Device;
use crate::device::group::Slots;
use crate::ops::PseudoLabels;
use crate::ops::commit;
use crate::ops::mix::Labeled;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::batch::DeviceBatch;

/// Images of the previous iteration with their labels and pseudo-labels.
pub struct Templates {
    /// Source images with their labels.
    pub source: Labeled,
    /// Target images with their pseudo-labels.
    pub target: Labeled,
    /// B,H,W: 1 where the teacher was confident.
    pub confident: Tensor,
    /// Iteration that the images come from, if any.
    pub iteration: Option<u64>,
}

impl Templates {
    /// Allocates the buffers for the images in `slots`; they are empty unless the method is QuadMix.
    pub fn new(device: &Device, config: &Config, slots: Slots) -> Result<Templates> {
        // Only QuadMix uses them; for the other methods they are empty.
        let batch = if config.quadmix.enabled { slots.count } else { 0 };
        let side = config.data.crop;
        let labeled = |weight: Option<Tensor>| {
            Ok::<_, Error>(Labeled {
                image: device.zeros(&[batch, side, side, 3], device.real())?,
                label: device.zeros(&[batch, side, side], DType::U8)?,
                weight,
            })
        };
        let weight = device.zeros(&[batch, side, side], device.real())?;
        Ok(Templates {
            source: labeled(None)?,
            target: labeled(Some(weight))?,
            confident: device.zeros(&[batch, side, side], DType::U8)?,
            iteration: None,
        })
    }

    /// Returns the tensors with their names in checkpoints.
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

    /// Returns the templates of all processes, in the order of [`named`](Self::named).
    pub fn gathered(&mut self, device: &Device) -> Result<Vec<(&'static str, Tensor)>> {
        let full = self.named().into_iter().filter(|(_, tensor)| !tensor.is_empty());
        full.map(|(name, tensor)| Ok((name, device.gather(tensor)?))).collect()
    }

    /// Replaces the templates by the current batch, unless the step failed.
    pub fn replace(
        &mut self,
        device: &Device,
        batch: &DeviceBatch,
        pseudo: &PseudoLabels,
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
