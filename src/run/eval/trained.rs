//! A trained network together with its device.

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

/// A network with the weights of a file, and the device that they are on.
pub struct Trained {
    device: Device,
    network: Segmentor,
    weights: Weights,
}

impl Trained {
    /// Loads one of the networks in `file` to the device that `config` names.
    ///
    /// # Errors
    /// An error from the device, or [`Error::Weights`](crate::Error::Weights) if the file does not
    /// fit the configured network.
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

    /// Returns the device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns a predictor for the network.
    pub fn predictor<'a>(&'a self, config: &'a EvalConfig) -> Result<Predictor<'a>> {
        Predictor::new(&self.device, &self.network, &self.weights, config)
    }
}
