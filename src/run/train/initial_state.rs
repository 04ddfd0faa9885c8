//! Builds the training state from a configuration: the student's initial weights and the frozen
//! ImageNet model.

use std::path::Path;

use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::{Network, load_backbone, load_network};
use crate::config::Config;
use crate::device::Device;
use crate::nn::Segmentor;
use crate::params::Weights;
use crate::uda::memory::with_advice;
use crate::uda::state::TrainingState;
use crate::{Error, Result};

/// Returns the effective configuration: the feature distance is disabled if training starts from
/// random weights, because it needs an ImageNet model.
pub fn effective(config: &Config) -> Config {
    let mut config = config.clone();
    config.feature_distance.enabled &= pretrained(&config).is_some();
    config
}

/// Returns the file of `weights.init`; `None` for random weights.
pub fn pretrained(config: &Config) -> Option<&Path> {
    (config.weights.init != "random").then_some(Path::new(&config.weights.init))
}

/// Builds the training state at the start of a run. The student's weights come from the checkpoint
/// `start`, or else from `weights.init`.
///
/// # Errors
/// [`Error::Config`] if `weights.init` cannot be opened; [`Error::Weights`] if a file does not fit
/// the network; [`Error::OutOfMemory`], with settings that need less.
pub fn build(
    config: &Config,
    device: &Device,
    start: Option<&TensorFile>,
) -> Result<TrainingState> {
    let state = build_in_memory(config, device, start);
    with_advice(state, config, config.device.cuda_graph)
}

fn build_in_memory(
    config: &Config,
    device: &Device,
    start: Option<&TensorFile>,
) -> Result<TrainingState> {
    let config = effective(config);
    let network = Segmentor::new(&config.network)?;
    let mut student = Weights::new(device, network.spec(), true)?;
    student.initialize(device, config.seed)?;
    let random = config.weights.init == "random";
    let pretrained = || {
        TensorFile::open(&config.weights.init).map_err(|e| {
            Error::config(format!(
                "weights.init: {e}\n  These are the ImageNet weights of the backbone; see \
                 weights/README.md for where to get them. `--set weights.init=random` starts \
                 without them"
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
    TrainingState::new(device, &config, network, student, imagenet)
}
