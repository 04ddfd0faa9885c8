//! Runs one kernel by itself, at a size it has in an iteration, so that other profilers can inspect
//! it.

use half::bf16;

use crate::config::Config;
use crate::device::profile::{Argument, Launch, Work};
use crate::device::{Arg, ArgElement, Device};
use crate::run::build;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::rates::Rates;
use super::synthetic::Synthetic;
use super::units::time;

/// A kernel launch taken from an iteration.
pub struct Kernel {
    launch: Launch,
    /// Number of launches with this shape in an iteration.
    calls: usize,
    bytes: f64,
    flops: f64,
}

impl Kernel {
    /// Finds a launch of `kernel` in an iteration of `config`: the one with the given `shape`, or
    /// the one that moves the most bytes.
    ///
    /// # Errors
    /// [`Error::Config`] if no launch matches; it lists the available kernels or shapes.
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

    /// Runs the kernel `repeats` times on newly allocated tensors and returns the time of each run,
    /// in seconds.
    pub fn run(&self, device: &Device, repeats: usize) -> Result<Vec<f64>> {
        let Launch { kernel, grid, arguments } = &self.launch;
        let tensors = tensors(device, arguments)?;
        let args: Vec<Arg> =
            arguments.iter().zip(&tensors).map(|(a, t)| argument(a, t.as_ref())).collect();
        let once = || {
            let (result, profile) = device.profile(|| device.launch(kernel, *grid, &args))?;
            result.map(|()| profile.seconds)
        };
        // Warm up: the first launch may compile or load the kernel.
        once()?;
        (0..repeats).map(|_| once()).collect()
    }

    /// Summarizes the `samples` (seconds) that [`run`](Self::run) returned: minimum, median, rates,
    /// and the share of the device's bound.
    pub fn describe(&self, rates: &Rates, samples: &[f64]) -> String {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let least = sorted.first().copied().unwrap_or(f64::NAN);
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        let bound = rates.bound(self.bytes, self.flops);
        format!(
            "{} {}, {} of them in an iteration\n{} times: minimum {}, median {}\n\
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

/// Returns every kernel launch of one iteration, recorded by a dry run.
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
        "--{what}: no launch of an iteration has {what} {wanted}; the choices are {known}"
    ))
}

/// Allocates tensors with the shapes and types of the launch. Floating-point tensors hold values in
/// [0, 1); integer tensors (labels, indices, flags) are all 0, which is valid for every kernel.
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
