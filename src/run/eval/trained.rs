//! A trained network together with its device.

use std::rc::Rc;

use super::inference::{Kept, Predictor};
use super::memory::with_advice;
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
    kept: Rc<Kept>,
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
        Self::load_on(build::device(config)?, config, file, which, observer)
    }

    /// Loads one of the networks in `file` to a device.
    ///
    /// # Errors
    /// The same as for [`load`](Self::load).
    pub fn load_on(
        device: Device,
        config: &Config,
        file: &TensorFile,
        which: Network,
        observer: &dyn Observer,
    ) -> Result<Trained> {
        let (network, weights) = build::trained(config, &device, file, which)?;
        if let Some(note) = file.skipped_note() {
            observer.message(&note);
        }
        let kept = with_advice(Kept::new(&device, config.device.cuda_graph), &config.eval)?;
        Ok(Trained { device, network, weights, kept: Rc::new(kept) })
    }

    /// Returns the device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the number of classes of the network.
    pub fn classes(&self) -> usize {
        self.network.classes()
    }

    /// Returns a predictor for the network. Predictors share what they keep on the device.
    pub fn predictor<'a>(&'a self, config: &'a EvalConfig) -> Predictor<'a> {
        Predictor::with(&self.device, &self.network, &self.weights, config, self.kept.clone())
    }
}
