//! The previous iteration's images, which QuadMix pastes from.

use crate::config::Config;
use crate::device::Device;
use crate::ops::PseudoLabels;
use crate::ops::commit;
use crate::ops::mix::Labelled;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::batch::DeviceBatch;

/// The previous iteration's images with their labels and pseudo-labels.
pub struct Templates {
    pub source: Labelled,
    pub target: Labelled,
    /// B,H,W: where the teacher was confident.
    pub confident: Tensor,
    /// The iteration that they come from.
    pub iteration: Option<u64>,
}

impl Templates {
    pub fn new(device: &Device, config: &Config) -> Result<Templates> {
        // Only QuadMix uses them; for the other methods they are empty.
        let batch = if config.quadmix.enabled { config.data.batch } else { 0 };
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

    /// The tensors with their names in checkpoints.
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

    /// Makes the current batch the templates, unless the step failed.
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
