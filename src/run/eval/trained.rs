//! A trained network on its device.

use super::inference::Predictor;
use crate::Result;
use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::Network;
use crate::config::{Config, EvalConfig};
use crate::device::Device;
use crate::nn::Segmentor;
use crate::observer::Observer;
use crate::params::Weights;
use crate::run::build;

/// A network with a file's weights, and the device that both are on.
pub struct Trained {
    device: Device,
    network: Segmentor,
    weights: Weights,
}

impl Trained {
    /// One of the networks in `file`, on the device that `config` names.
    pub fn load(
        config: &Config,
        file: &TensorFile,
        which: Network,
        observer: &dyn Observer,
    ) -> Result<Trained> {
        let device = build::device(config)?;
        let (network, weights) = build::trained(config, &device, file, which)?;
        if let Some(note) = file.skipped_note() {
            observer.message(&note);
        }
        Ok(Trained { device, network, weights })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn predictor<'a>(&'a self, config: &'a EvalConfig) -> Result<Predictor<'a>> {
        Predictor::new(&self.device, &self.network, &self.weights, config)
    }
}
