//! From a configuration to what trains: the student's first weights, and the frozen ImageNet model.

use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::{Network, load_backbone, load_network};
use crate::config::Config;
use crate::device::Device;
use crate::nn::Segmentor;
use crate::params::Weights;
use crate::uda::state::Learner;
use crate::{Error, Result};

/// The configuration as it takes effect: without ImageNet weights there is nothing to keep the
/// features close to.
pub fn effective(config: &Config) -> Config {
    let mut config = config.clone();
    config.feature_distance.enabled &= config.weights.init != "random";
    config
}

/// A learner at the start of a run: from a checkpoint's student, or from `weights.init`.
pub fn build(config: &Config, device: &Device, start: Option<&TensorFile>) -> Result<Learner> {
    let config = effective(config);
    let network = Segmentor::new(&config.network)?;
    let mut student = Weights::new(device, network.spec(), true)?;
    student.initialize(device, config.seed)?;
    let random = config.weights.init == "random";
    let pretrained = || {
        TensorFile::open(&config.weights.init).map_err(|e| {
            Error::config(format!(
                "weights.init: {e}\n  These are the ImageNet weights of the backbone; weights/README.md \
                 says where they come from. `--set weights.init=random` starts without"
            ))
        })
    };
    match start {
        Some(file) => load_network(file, device, &mut student, Network::Student)?,
        None if random => {}
        None => load_backbone(&pretrained()?, device, &mut student)?,
    }
    let imagenet = if config.feature_distance.enabled {
        let mut frozen = Weights::new(device, network.spec(), false)?;
        load_backbone(&pretrained()?, device, &mut frozen)?;
        Some(frozen)
    } else {
        None
    };
    Learner::new(device, &config, network, student, imagenet)
}
