//! Measures a device's peak rates.

use crate::Result;
use crate::device::{Device, MatrixView};
use crate::dtype::DType;
use crate::ops;

/// Number of measurements of each rate; the fastest one counts.
const REPEATS: usize = 5;
/// Fewest elements of the tensors used to measure memory bandwidth. Two of them are also this many
/// times as large as the last cache, as far as there is memory for that.
const STREAM: usize = 16 << 20;
const CACHES: usize = 4;
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
    /// Measures the rates: bandwidth on a large copy, scaling or search, whichever is fastest, and
    /// the matrix rate on square matmuls.
    pub fn measure(device: &Device) -> Result<Rates> {
        let size = device.real().bytes();
        let caches = CACHES * device.last_cache().unwrap_or(0) / (2 * size);
        let room = device.available_memory().map_or(usize::MAX, |(left, _)| left / (8 * size));
        let elements = caches.min(room).max(STREAM);
        let mut x = device.empty(&[elements])?;
        ops::fill(device, &mut x, 1.0)?;
        let mut y = device.empty_like(&x)?;
        let copy = best(device, || device.copy(&x, &mut y))?;
        let sum = best(device, || ops::scaled(device, &x, 1.0, &mut y))?;
        // A cache line that is written is usually read first, so reading alone is the fastest.
        let mut found = device.zeros(&[1], DType::I32)?;
        let read = best(device, || ops::flag_not_finite(device, &x, &mut found))?;
        let memory = x.bytes() as f64 * (2.0 / copy.min(sum)).max(1.0 / read);
        drop((x, y));
        let mut matrix: f64 = 0.0;
        for side in SIDES {
            let a = device.upload_real(&[side, side], &vec![0.5; side * side])?;
            let mut out = device.empty_like(&a)?;
            let seconds = best(device, || {
                ops::matmul(device, &mut out, MatrixView::of(&a), MatrixView::of(&a), false)
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
