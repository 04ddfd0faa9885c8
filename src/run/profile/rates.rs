//! Measures a device's peak rates.

use crate::Result;
use crate::device::{Device, Matrix};
use crate::ops;

/// Number of measurements of each rate; the fastest one counts.
const REPEATS: usize = 5;
/// Elements of the tensors used to measure memory bandwidth: more than the caches hold.
const STREAM: usize = 16 << 20;
/// Sizes of the square matmuls used to measure the matrix rate, tried until one takes long enough.
const SIDES: [usize; 5] = [512, 1024, 2048, 4096, 8192];
/// Seconds after which a matmul is long enough to measure.
const LONG_ENOUGH: f64 = 5e-3;

/// Peak rates of a device. They bound the time of a call from below, unless its data fits a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Memory bandwidth, in bytes per second read or written.
    pub memory: f64,
    /// FLOPs per second of matmuls.
    pub matrix: f64,
}

impl Rates {
    /// Measures the rates: bandwidth on a large copy or scaling, whichever is faster, and the
    /// matrix rate on square matmuls.
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

    /// Lower bound of the time of a call with this many bytes and FLOPs, in seconds.
    pub fn bound(&self, bytes: f64, flops: f64) -> f64 {
        (bytes / self.memory).max(flops / self.matrix)
    }
}

/// Runs the closure several times and returns the time of the fastest run, in seconds.
fn best(device: &Device, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..REPEATS {
        let (result, profile) = device.profile(&mut run)?;
        result?;
        least = least.min(profile.seconds);
    }
    Ok(least)
}
