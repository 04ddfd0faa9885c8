//! Builds what a configuration describes: a device and a trained network.

use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::{Network, load_network};
use crate::config::Config;
use crate::device::{Device, Precision};
use crate::nn::Segmentor;
use crate::params::Weights;
use crate::run::eval::memory::with_advice;
use crate::{Error, Result};

/// Opens the device named by `device.kind`, with its memory limit; `auto` selects the first GPU if
/// there is one.
///
/// # Errors
/// [`Error::Config`] for an unknown `device.precision`; [`Error::Device`] if the device is
/// unavailable.
pub fn device(config: &Config) -> Result<Device> {
    let gpu = match config.device.kind.as_str() {
        "auto" => Device::cuda_is_present()?.then_some(0),
        _ => config.device.gpu(),
    };
    let precision = precision(config)?;
    let device = match gpu {
        Some(index) => Device::cuda_at(index, precision, config.device.deterministic)?,
        None => Device::host_in(config.device.threads, precision)?,
    };
    limit_memory(config, &device)?;
    Ok(device)
}

/// Limits the memory of a device's tensors to `device.memory_limit`.
pub fn limit_memory(config: &Config, device: &Device) -> Result<()> {
    if let Some(total) = device.total_memory()? {
        device.set_memory_limit(config.device.memory_limit().bytes(total));
    }
    Ok(())
}

/// Returns the precision named by `device.precision`.
///
/// # Errors
/// [`Error::Config`] for an unknown name.
pub fn precision(config: &Config) -> Result<Precision> {
    match config.device.precision.as_str() {
        "f32" => Ok(Precision::F32),
        "tf32" => Ok(Precision::Tf32),
        "bf16" => Ok(Precision::Bf16),
        other => Err(Error::config(format!("device.precision: unknown precision `{other}`"))),
    }
}

/// Builds a network and loads its weights from `file`, for evaluation and prediction.
///
/// # Errors
/// [`Error::Config`] for an invalid network; [`Error::Weights`] if the file does not fit it.
pub fn trained(
    config: &Config,
    device: &Device,
    file: &TensorFile,
    which: Network,
) -> Result<(Segmentor, Weights)> {
    let network = Segmentor::new(&config.network)?;
    let load = || {
        let mut weights = Weights::new(device, network.spec(), false)?;
        load_network(file, device, &mut weights, which)?;
        Ok(weights)
    };
    let weights = with_advice(load(), &config.eval)?;
    Ok((network, weights))
}
