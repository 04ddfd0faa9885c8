//! Profiles one training iteration, either measured on a device or predicted from its calls.

use std::time::Instant;

use super::measured::{Measured, Modeled};
use super::model::Model;
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
    Ok(Measured { config, device, predicted, modeled: None, rates, samples, memory, profile })
}

/// What an iteration is predicted for.
pub enum Predicted<'a> {
    /// A device of which only the peak rates are known. Every call takes its lower bound for its
    /// bytes and FLOPs.
    Bound(Rates),
    /// A GPU whose constants are known. Every call takes its expected time.
    Expected(&'a Model),
}

/// Predicts an iteration of `config` without running it. There are no gaps between calls.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for an unknown precision, an invalid network, or a kernel
/// that the model does not know.
pub fn predict(config: &Config, name: &str, of: Predicted) -> Result<Measured> {
    let precision = build::precision(config)?;
    let (device, rates) = match of {
        Predicted::Bound(rates) => (Device::dry(precision), rates),
        Predicted::Expected(Model { machine, .. }) => {
            (Device::dry_on(precision, machine.multiprocessors), machine.peak(precision))
        }
    };
    let mut training = Synthetic::new(&device, config)?;
    device.reset_peak_memory();
    training.step()?;
    let memory = device.memory();
    let (result, mut profile) = device.profile(|| training.step())?;
    result?;
    let mut expected = Vec::new();
    let mut now = 0.0;
    for call in &mut profile.calls {
        call.start = now;
        call.seconds = match of {
            Predicted::Bound(_) => rates.bound(call.bytes, call.flops),
            Predicted::Expected(model) => {
                let time = model.expected(call)?;
                expected.push(time);
                time.seconds
            }
        };
        now += call.seconds;
    }
    profile.seconds = now;
    let modeled = match of {
        Predicted::Bound(_) => None,
        Predicted::Expected(model) => {
            Some(Modeled { machine: model.machine.name.clone(), calls: expected })
        }
    };
    let (config, device) = (name.into(), device.describe());
    let (predicted, samples) = (true, Vec::new());
    Ok(Measured { config, device, predicted, modeled, rates, samples, memory, profile })
}
