//! One kernel alone, at a size that an iteration has: for looking at it with other tools.

use half::bf16;

use crate::config::Config;
use crate::device::profile::{Argument, Launch, Work};
use crate::device::{Arg, ArgElement, Device};
use crate::run::build;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::table::time;
use super::{Rates, Synthetic};

/// A kernel's launch in an iteration.
pub struct Kernel {
    launch: Launch,
    /// Launches of this shape in an iteration.
    calls: usize,
    bytes: f64,
    flops: f64,
}

impl Kernel {
    /// As an iteration of `config` launches it. Of several shapes it takes the wanted one, or that
    /// with the most bytes.
    ///
    /// # Errors
    /// Names the kernels or the shapes that there are, where none is as wanted.
    pub fn find(config: &Config, kernel: &str, shape: Option<&str>) -> Result<Kernel> {
        let mut found = launches(config)?;
        let all: Vec<String> = found.iter().map(|one| one.launch.kernel.name.into()).collect();
        found.retain(|one| one.launch.kernel.name == kernel);
        let shapes: Vec<String> = found.iter().map(|one| one.launch.shape()).collect();
        let largest = (found.into_iter())
            .filter(|one| shape.is_none_or(|shape| one.launch.shape() == shape))
            .max_by(|a, b| a.bytes.total_cmp(&b.bytes));
        match (largest, shape) {
            (Some(one), _) => {
                let shape = one.launch.shape();
                let calls = shapes.iter().filter(|other| **other == shape).count();
                Ok(Kernel { calls, ..one })
            }
            (None, Some(shape)) if !shapes.is_empty() => Err(unknown("shape", shape, shapes)),
            (None, _) => Err(unknown("kernel", kernel, all)),
        }
    }

    /// Seconds of `repeats` runs on tensors of its own.
    pub fn run(&self, device: &Device, repeats: usize) -> Result<Vec<f64>> {
        let Launch { kernel, grid, arguments } = &self.launch;
        let tensors = tensors(device, arguments)?;
        let args: Vec<Arg> =
            arguments.iter().zip(&tensors).map(|(a, t)| argument(a, t.as_ref())).collect();
        let once = || {
            let (result, profile) = device.profile(|| device.launch(kernel, *grid, &args))?;
            result.map(|()| profile.seconds)
        };
        // The first is for what the device prepares.
        once()?;
        (0..repeats).map(|_| once()).collect()
    }

    /// What `samples` of [`run`](Self::run) say.
    pub fn describe(&self, rates: &Rates, samples: &[f64]) -> String {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let least = sorted.first().copied().unwrap_or(f64::NAN);
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        let bound = rates.bound(self.bytes, self.flops);
        format!(
            "{} {}, {} of them in an iteration\n{} times: {} at least, {} in the middle\n\
             {:.1} GB/s, {:.3} TFLOP/s, {:.0} % of its bound of {}",
            self.launch.kernel.name,
            self.launch.shape(),
            self.calls,
            samples.len(),
            time(least),
            time(middle),
            self.bytes / least * 1e-9,
            self.flops / least * 1e-12,
            100.0 * bound / least,
            time(bound)
        )
    }
}

/// What an iteration launches.
fn launches(config: &Config) -> Result<Vec<Kernel>> {
    let device = Device::dry(build::precision(config)?);
    let mut training = Synthetic::new(&device, config)?;
    let (result, profile) = device.profile(|| training.step())?;
    result?;
    let launches = profile.calls.into_iter().filter_map(|call| match call.work {
        Work::Kernel(launch) => {
            Some(Kernel { launch, calls: 1, bytes: call.bytes, flops: call.flops })
        }
        _ => None,
    });
    Ok(launches.collect())
}

fn unknown(what: &str, wanted: &str, mut known: Vec<String>) -> Error {
    known.sort();
    known.dedup();
    let known = known.join(", ");
    Error::config(format!(
        "--{what}: no launch of an iteration has {what} {wanted}; there are {known}"
    ))
}

/// Tensors as the launch had them: numbers between 0 and 1; labels, places and choices all 0, which
/// every kernel takes.
fn tensors(device: &Device, arguments: &[Argument]) -> Result<Vec<Option<Tensor>>> {
    let one = |argument: &Argument| match argument {
        Argument::Tensor { shape, dtype, .. } => {
            let mut tensor = device.zeros(shape, *dtype)?;
            let some = |i: usize| (i % 251) as f32 / 251.0;
            if *dtype == device.real() {
                let some: Vec<f32> = (0..tensor.len()).map(some).collect();
                device.write_real(&mut tensor, &some)?;
            } else if *dtype == DType::Bf16 {
                let some: Vec<_> = (0..tensor.len()).map(|i| bf16::from_f32(some(i))).collect();
                device.write(&mut tensor, &some)?;
            }
            Ok(Some(tensor))
        }
        _ => Ok(None),
    };
    arguments.iter().map(one).collect()
}

fn argument<'a>(argument: &Argument, tensor: Option<&'a Tensor>) -> Arg<'a> {
    match *argument {
        Argument::Tensor { name, element, written, .. } => {
            Arg::Pointer { name, element, written, tensor: tensor.map(Tensor::view) }
        }
        Argument::Absent => {
            Arg::Pointer { name: "", element: ArgElement::Real, written: false, tensor: None }
        }
        Argument::I64(x) => Arg::I64(x),
        Argument::I32(x) => Arg::I32(x),
        Argument::U64(x) => Arg::U64(x),
        Argument::Real(x) => Arg::Real(x),
    }
}
