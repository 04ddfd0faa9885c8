//! Where an iteration spends its time: by kernel, by layer, by pass, against what the device can do.

mod alone;
mod html;
mod summary;
mod synthetic;
mod table;
mod trace;

pub use alone::Kernel;
pub use synthetic::Synthetic;

use std::time::Instant;

use serde_json::{Value, json};

use crate::Result;
use crate::config::Config;
use crate::device::profile::Profile;
use crate::device::{Device, Matrix, MemoryReport};
use crate::ops;
use crate::run::build;
use summary::{Group, Row};

/// Iterations before the measured ones: libraries make their plans, memory is touched.
const WARM_UP: usize = 2;
/// Of a rate; the best counts.
const REPEATS: usize = 5;
/// Numbers of the tensors that the memory rate is measured on: more than caches hold.
const STREAM: usize = 16 << 20;
/// Sides of the products that the matrix rate is measured on, until one takes long enough.
const SIDES: [usize; 5] = [512, 1024, 2048, 4096, 8192];
const LONG_ENOUGH: f64 = 5e-3;

/// What a device can do at best: no call can be faster than its bytes and FLOPs over these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes per second, read or written.
    pub memory: f64,
    /// FLOPs per second of matrix products.
    pub matrix: f64,
}

/// A profiled iteration.
pub struct Measured {
    /// The configuration, as its user named it.
    pub config: String,
    pub device: String,
    /// Whether its times are computed from bytes and FLOPs rather than measured.
    pub predicted: bool,
    pub rates: Rates,
    /// Seconds of whole iterations that nobody watched.
    pub samples: Vec<f64>,
    pub memory: MemoryReport,
    pub profile: Profile,
}

impl Rates {
    /// Measures them: a sum of two large tensors or a copy, and square products.
    pub fn measure(device: &Device) -> Result<Rates> {
        let x = device.upload_real(&[STREAM], &vec![1.0; STREAM])?;
        let mut y = device.empty_like(&x)?;
        let copy = best(device, || device.copy(&x, &mut y))?;
        let sum = best(device, || ops::scaled(device, &x, 1.0, &mut y))?;
        let memory = 2.0 * x.bytes() as f64 / copy.min(sum);
        let mut matrix: f64 = 0.0;
        for side in SIDES {
            let a = device.upload_real(&[side, side], &vec![0.5; side * side])?;
            let mut out = device.empty_like(&a)?;
            let seconds = best(device, || {
                ops::matmul(device, &mut out, Matrix::of(&a), Matrix::of(&a), false)
            })?;
            matrix = matrix.max(2.0 * (side as f64).powi(3) / seconds);
            if seconds > LONG_ENOUGH {
                break;
            }
        }
        Ok(Rates { memory, matrix })
    }

    /// Seconds that a call of so many bytes and FLOPs takes at least.
    pub fn bound(&self, bytes: f64, flops: f64) -> f64 {
        (bytes / self.memory).max(flops / self.matrix)
    }
}

/// Seconds of the fastest of several runs.
fn best(device: &Device, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..REPEATS {
        let (result, profile) = device.profile(&mut run)?;
        result?;
        least = least.min(profile.seconds);
    }
    Ok(least)
}

/// Profiles an iteration of `config`: the fastest of `samples`, each beside one that nobody watches.
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

/// What an iteration of `config` asks of a device that can do as much as `rates` say, without running
/// it: every call takes what its bytes and FLOPs take at least, and nothing lies between them.
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

impl Measured {
    /// The tables, with at most `rows` rows of kernels and of layers.
    pub fn terminal(&self, rows: usize) -> String {
        table::terminal(self, rows)
    }

    /// One page that needs nothing but a browser.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// For chrome://tracing and ui.perfetto.dev.
    pub fn trace(&self) -> Value {
        trace::trace(self)
    }

    /// Everything, each call included.
    pub fn to_json(&self) -> Value {
        let mut previous = 0.0;
        let calls: Vec<Value> = (self.profile.calls.iter())
            .map(|call| {
                let gap = call.start - previous;
                previous = call.start + call.seconds;
                json!({
                    "kernel": call.work.name(),
                    "shape": call.work.shape(),
                    "pass": call.place.scope,
                    "layer": &*call.place.layer,
                    "stage": summary::stage(&call.place.layer),
                    "backward": call.place.backward,
                    "start_seconds": call.start,
                    "seconds": call.seconds,
                    "gap_seconds": gap,
                    "bytes": call.bytes,
                    "flops": call.flops,
                    "bound_seconds": self.rates.bound(call.bytes, call.flops),
                })
            })
            .collect();
        let groups: serde_json::Map<String, Value> = (Group::ALL.iter())
            .map(|group| {
                let rows = self.rows(*group);
                (format!("by_{}", group.name()), rows.iter().map(Row::to_json).collect())
            })
            .collect();
        let holders = self.memory.peak_holders.iter();
        let holders: Vec<Value> =
            holders.map(|(name, bytes)| json!({"holder": name, "bytes": bytes})).collect();
        let mut all = json!({
            "program": concat!("udass-raw ", env!("CARGO_PKG_VERSION")),
            "config": self.config,
            "device": self.device,
            "predicted": self.predicted,
            "memory_bytes_per_second": self.rates.memory,
            "matrix_flops_per_second": self.rates.matrix,
            "iteration_seconds": self.samples,
            "profiled_seconds": self.profile.seconds,
            "peak_bytes": self.memory.peak,
            "peak_holders": holders,
        });
        if let Value::Object(all) = &mut all {
            all.extend(groups);
            all.insert("calls".into(), calls.into());
        }
        all
    }

    fn rows(&self, group: Group) -> Vec<Row> {
        summary::rows(&self.profile, &self.rates, group)
    }

    /// Seconds within calls.
    fn inside(&self) -> f64 {
        self.profile.calls.iter().map(|call| call.seconds).sum()
    }
}
