//! The class statistics that contrast losses compare features with, which training keeps (SePiCo, Xie
//! et al. 2023).

use crate::Result;
use crate::config::{Config, ContrastKind};
use crate::device::Device;
use crate::ops::{
    self, Bank, ClassMoments, ClassStatistics, ContrastSettings, Contrasted, class_sums, commit,
};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Class statistics and, for a bank, earlier means.
pub struct Kept {
    /// Mean and variance of each class over all iterations.
    pub statistics: ClassStatistics,
    /// Means of each class in earlier iterations; None unless they are what is contrasted with.
    pub bank: Option<Bank>,
}

impl Kept {
    fn new(device: &Device, config: &Config) -> Result<Kept> {
        let (classes, channels) = (config.network.classes, config.network.projection);
        let bank = (config.contrast.kind == ContrastKind::Bank)
            .then(|| Bank::new(device, classes, config.contrast.memory, channels));
        let statistics = ClassStatistics::new(device, classes, channels)?;
        Ok(Kept { statistics, bank: bank.transpose()? })
    }

    /// Returns the tensors with their names in checkpoints.
    pub fn named(&mut self) -> Vec<(&'static str, &mut Tensor)> {
        let ClassStatistics { mean, variance, amount } = &mut self.statistics;
        let mut all = vec![
            ("contrast.mean", mean),
            ("contrast.variance", variance),
            ("contrast.amount", amount),
        ];
        if let Some(Bank { vectors, pushed }) = &mut self.bank {
            all.extend([("contrast.bank", vectors), ("contrast.pushed", pushed)]);
        }
        all
    }
}

/// State of the contrast losses.
pub struct Contrast {
    /// The statistics after the last iteration.
    pub kept: Kept,
    /// Those that the current iteration takes its features into, and compares with.
    pub(super) current: Kept,
    settings: ContrastSettings,
    kind: ContrastKind,
    min_share: f64,
    classes: usize,
}

impl Contrast {
    /// Creates the statistics of no features; None if the configuration has no contrast.
    pub fn new(device: &Device, config: &Config) -> Result<Option<Contrast>> {
        let contrast = &config.contrast;
        if !contrast.enabled {
            return Ok(None);
        }
        Ok(Some(Contrast {
            kept: Kept::new(device, config)?,
            current: Kept::new(device, config)?,
            settings: ContrastSettings {
                temperature: contrast.temperature,
                regularizer: contrast.regularizer,
            },
            kind: contrast.kind,
            min_share: contrast.min_share.into(),
            classes: config.network.classes,
        }))
    }

    /// Copies the statistics, so that the iteration changes the copies until
    /// [`commit`](Self::commit).
    pub(super) fn stage(&mut self, device: &Device) -> Result<()> {
        let Contrast { kept, current, .. } = self;
        let mut pairs = kept.named().into_iter().zip(current.named());
        pairs.try_for_each(|((_, from), (_, to))| device.copy(from, to))
    }

    /// Keeps the iteration's statistics unless it failed.
    pub(super) fn commit(&mut self, device: &Device, failed: &Tensor) -> Result<()> {
        let Contrast { kept, current, .. } = self;
        let mut pairs = current.named().into_iter().zip(kept.named());
        pairs.try_for_each(|((_, from), (_, to))| commit(device, from, to, failed))
    }

    /// Returns the class of each cell of the projected features B,h,w,C of an image with `label`,
    /// u8 B,H,W; 255 where no class covers enough of it.
    pub(super) fn cells(
        &self,
        device: &Device,
        label: &Tensor,
        features: &Tensor,
    ) -> Result<Tensor> {
        let scale = label.dim(2) / features.dim(2).max(1);
        ops::downscale_labels(device, label, scale, self.min_share)
    }

    /// Takes in the projected features of the batch. The sums are over this process's part of it.
    pub(super) fn take_in(
        &mut self,
        device: &Device,
        features: &Tensor,
        cells: &Tensor,
    ) -> Result<()> {
        let sums = class_sums(device, features, cells, self.classes)?;
        let moments = ClassMoments::new(device, features, cells, sums)?;
        self.current.statistics.merge(device, &moments)?;
        match &mut self.current.bank {
            Some(bank) => bank.push(device, &moments),
            None => Ok(()),
        }
    }

    /// Returns the loss of projected features.
    pub(super) fn loss(&self, tape: &Tape, features: &Tensor, cells: &Tensor) -> Result<Tensor> {
        let Kept { statistics, bank } = &self.current;
        let with = match (self.kind, bank) {
            (ContrastKind::Bank, Some(bank)) => Contrasted::Bank(bank),
            (ContrastKind::Distributions, _) => Contrasted::Distributions,
            _ => Contrasted::Prototypes,
        };
        let sums = class_sums(tape.device(), &features.detach(), cells, self.classes)?;
        let loss = ops::contrast(tape, features, cells, &sums, statistics, with, self.settings)?;
        Ok(loss.value)
    }
}
