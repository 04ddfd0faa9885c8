//! Builds what a configuration describes: a device and a trained network.

use std::rc::Rc;

use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::{Network, load_network};
use crate::config::{BatchNormImages, Config};
use crate::device::group::{BatchNormOver, Launched, Launcher, Mpi};
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

/// Opens the device for one of several processes that train together, with its share of the
/// machine's cores or the GPU of its local rank, and joins the group.
///
/// # Errors
/// Those of [`device`]; [`Error::Config`] or [`Error::Device`] if the processes cannot exchange
/// anything, or cannot share a batch equally.
pub fn joined(config: &Config, launched: &Launched) -> Result<Device> {
    let place = launched.place;
    place.slots(config.data.batch)?;
    if config.device.gpu().is_some() || config.device.kind == "auto" && Device::cuda_is_present()? {
        let problem = "several processes can train together on the host device only: add --device \
                       host, or start one process for each run";
        return Err(Error::config(problem));
    }
    let mut config = config.clone();
    config.device.kind = "host".into();
    if config.device.threads == 0 {
        config.device.threads = place.cores();
    }
    let device = device(&config)?;
    let over = match config.parallel.batch_norm {
        BatchNormImages::All => BatchNormOver::All,
        BatchNormImages::Rank => BatchNormOver::Rank,
    };
    device.join(Rc::new(Mpi::join(launched)?), over)?;
    Ok(device)
}

/// Returns how this process was started, as `parallel.launcher` says.
///
/// # Errors
/// [`Error::Config`] if something else started it.
pub fn launched(config: &Config) -> Result<Launched> {
    Launched::of_environment(config.parallel.launcher.parse::<Launcher>()?)
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
