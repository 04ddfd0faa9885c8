//! From a configuration to what it describes: device, network, weights.

use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::{Network, load_backbone, load_network};
use crate::config::Config;
use crate::device::{Device, Precision};
use crate::nn::Segmentor;
use crate::params::Weights;
use crate::uda::step::Learner;
use crate::{Error, Result};

/// The device that `device.kind` names; `auto` takes the GPU where there is one.
pub fn device(config: &Config) -> Result<Device> {
    let on_gpu = match config.device.kind.as_str() {
        "cuda" => true,
        "auto" => Device::cuda_is_present()?,
        _ => false,
    };
    let precision = precision(config)?;
    match on_gpu {
        true => Device::cuda(precision, config.device.deterministic),
        false => Device::host_in(config.device.threads, precision),
    }
}

/// What `device.precision` names.
pub fn precision(config: &Config) -> Result<Precision> {
    match config.device.precision.as_str() {
        "f32" => Ok(Precision::F32),
        "tf32" => Ok(Precision::Tf32),
        "bf16" => Ok(Precision::Bf16),
        other => Err(Error::config(format!("device.precision: there is no `{other}`"))),
    }
}

/// A network with the weights of a file, for evaluation and prediction.
pub fn trained(
    config: &Config,
    device: &Device,
    file: &TensorFile,
    which: Network,
) -> Result<(Segmentor, Weights)> {
    let network = Segmentor::new(&config.network)?;
    let mut weights = Weights::new(device, network.spec(), false)?;
    load_network(file, device, &mut weights, which)?;
    Ok((network, weights))
}

/// The configuration as it takes effect: without ImageNet weights there is nothing to keep the
/// features close to.
pub fn effective(config: &Config) -> Config {
    let mut config = config.clone();
    config.feature_distance.enabled &= config.weights.init != "random";
    config
}

/// A learner at the start of a run: from a checkpoint's student, or from `weights.init`.
pub fn learner(config: &Config, device: &Device, start: Option<&TensorFile>) -> Result<Learner> {
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
