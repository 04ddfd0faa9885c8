//! Profiles one training iteration, either measured on a device or predicted from its calls.

use std::time::Instant;

use super::measured::Measured;
use super::rates::Rates;
use super::synthetic::Synthetic;
use crate::Result;
use crate::config::Config;
use crate::device::Device;
use crate::device::profile::Profile;
use crate::run::build;

/// Warm-up iterations: the libraries build their plans and the memory pools fill up.
const WARM_UP: usize = 2;

/// Profiles `samples` training iterations of `config` and keeps the fastest. Each is preceded by an
/// unprofiled iteration, whose wall-clock time goes to [`Measured::samples`].
///
/// # Errors
/// An error from the device, or an iteration whose losses or gradients are not finite.
pub fn measure(device: &Device, config: &Config, name: &str, samples: usize) -> Result<Measured> {
    let rates = Rates::measure(device)?;
    let mut training = Synthetic::new(device, config)?;
    device.reset_peak_memory();
    for _ in 0..WARM_UP {
        training.step()?;
    }
    let memory = device.memory();
    let mut seconds = Vec::new();
    let mut fastest: Option<Profile> = None;
    for _ in 0..samples.max(1) {
        device.synchronize()?;
        let start = Instant::now();
        training.step()?;
        device.synchronize()?;
        seconds.push(start.elapsed().as_secs_f64());
        let (result, profile) = device.profile(|| training.step())?;
        result?;
        if fastest.as_ref().is_none_or(|fastest| profile.seconds < fastest.seconds) {
            fastest = Some(profile);
        }
    }
    let (config, device) = (name.into(), device.describe());
    let (predicted, samples, profile) = (false, seconds, fastest.unwrap_or_default());
    Ok(Measured { config, device, predicted, rates, samples, memory, profile })
}

/// Predicts an iteration of `config` without running it, for a device with the peak `rates`. Every
/// call takes its lower bound for its bytes and FLOPs, and there are no gaps between calls.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for an unknown precision or an invalid network.
pub fn predict(config: &Config, name: &str, rates: Rates) -> Result<Measured> {
    let device = Device::dry(build::precision(config)?);
    let mut training = Synthetic::new(&device, config)?;
    device.reset_peak_memory();
    training.step()?;
    let memory = device.memory();
    let (result, mut profile) = device.profile(|| training.step())?;
    result?;
    let mut now = 0.0;
    for call in &mut profile.calls {
        (call.start, call.seconds) = (now, rates.bound(call.bytes, call.flops));
        now += call.seconds;
    }
    profile.seconds = now;
    let (config, device) = (name.into(), device.describe());
    Ok(Measured { config, device, predicted: true, rates, samples: Vec::new(), memory, profile })
}
