//! What a device can do at best, measured.

use crate::Result;
use crate::device::{Device, Matrix};
use crate::ops;

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
