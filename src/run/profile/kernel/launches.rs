//! The kernel launches of an iteration.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::device::Device;
use crate::device::profile::{Launch, Work};
use crate::run::build;
use crate::run::profile::synthetic::Synthetic;
use crate::{Error, Result};

/// A kernel launch taken from an iteration.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(super) launch: Launch,
    /// Number of launches with this shape in an iteration.
    pub calls: usize,
    /// Bytes of its tensors: the least that is touched if each is read or written once.
    pub bytes: f64,
    /// FLOPs, for kernels that state them.
    pub flops: f64,
}

/// What an iteration launches of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The kernel's name.
    pub name: &'static str,
    /// File in `kernels/` and line.
    pub file: &'static str,
    /// Line of the signature.
    pub line: u32,
    /// Number of launches in an iteration.
    pub calls: usize,
    /// Their shapes, the largest first, each with its number of launches and bytes.
    pub shapes: Vec<(String, usize, f64)>,
}

impl Kernel {
    /// Finds a launch of `kernel` in an iteration of `config`: the one with the given `shape`, or
    /// the one that moves the most bytes.
    ///
    /// # Errors
    /// [`Error::Config`] if no launch matches; it lists the available kernels or shapes.
    pub fn find(config: &Config, kernel: &str, shape: Option<&str>) -> Result<Kernel> {
        let found = Kernel::all(config, kernel)?;
        let shapes = || found.iter().map(Kernel::shape).collect();
        match shape {
            None => Ok(found[0].clone()),
            Some(shape) => (found.iter().find(|one| one.shape() == shape).cloned())
                .ok_or_else(|| unknown("shape", shape, shapes())),
        }
    }

    /// Returns a launch of `kernel` for each shape that an iteration of `config` has, the one that
    /// moves the most bytes first. There is at least one.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no launch; it lists the available kernels.
    pub fn all(config: &Config, kernel: &str) -> Result<Vec<Kernel>> {
        let launches = launches(config)?;
        let mut by_shape: BTreeMap<String, Kernel> = BTreeMap::new();
        for one in launches.iter().filter(|one| one.name() == kernel) {
            let kept = by_shape.entry(one.shape()).or_insert(Kernel { calls: 0, ..one.clone() });
            let calls = kept.calls + 1;
            // Launches of one shape may differ in optional tensors.
            let larger = if one.bytes > kept.bytes { one } else { &*kept };
            *kept = Kernel { calls, ..larger.clone() };
        }
        let mut found: Vec<Kernel> = by_shape.into_values().collect();
        found.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
        match found.is_empty() {
            true => {
                let names = launches.iter().map(|one| one.name().into()).collect();
                Err(unknown("kernel", kernel, names))
            }
            false => Ok(found),
        }
    }

    /// Lists the kernels of an iteration of `config` by name.
    pub fn list(config: &Config) -> Result<Vec<Listed>> {
        let mut names: Vec<&str> = Vec::new();
        let launches = launches(config)?;
        launches.iter().for_each(|one| names.push(one.name()));
        names.sort_unstable();
        names.dedup();
        let listed = |name| {
            let mut shapes: BTreeMap<String, (usize, f64)> = BTreeMap::new();
            let own = || launches.iter().filter(|one| one.name() == name);
            for one in own() {
                let (calls, bytes) = shapes.entry(one.shape()).or_default();
                *calls += 1;
                *bytes = bytes.max(one.bytes);
            }
            let mut shapes: Vec<(String, usize, f64)> =
                shapes.into_iter().map(|(shape, (calls, bytes))| (shape, calls, bytes)).collect();
            shapes.sort_by(|a, b| b.2.total_cmp(&a.2));
            let kernel = own().next()?.launch.kernel;
            let (name, file, line) = (kernel.name, kernel.file, kernel.line);
            Some(Listed { name, file, line, calls: own().count(), shapes })
        };
        Ok(names.into_iter().filter_map(listed).collect())
    }

    /// Returns the kernel's name.
    pub fn name(&self) -> &'static str {
        self.launch.kernel.name
    }

    /// Returns the shape of the launch's largest tensor.
    pub fn shape(&self) -> String {
        self.launch.shape()
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
