//! A device in double precision, random inputs, and helpers that the cases share.

use std::cell::Cell;

use udass_raw::device::{Device, Grid};
use udass_raw::tensor::Tensor;

// tests/cuda includes both this file and tests/support.
#[allow(clippy::duplicate_mod)]
#[path = "../support/hsv.rs"]
mod hsv;

use hsv::hsv;

/// The double-precision host, with a generator of inputs.
pub struct Host {
    pub device: Device,
    seed: Cell<u64>,
}

impl Host {
    pub fn double() -> Host {
        Host { device: crate::double(), seed: Cell::new(1) }
    }

    fn next(&self) -> u64 {
        let mut state = self.seed.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.seed.set(state);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state ^ (state >> 27)
    }

    /// Numbers in [-1, 1).
    pub fn reals(&self, shape: &[usize]) -> (Tensor, Vec<f64>) {
        let n = shape.iter().product();
        let data: Vec<f64> =
            (0..n).map(|_| (self.next() >> 12) as f64 / (1u64 << 51) as f64 - 1.0).collect();
        (self.device.upload(shape, &data).unwrap(), data)
    }

    /// Numbers in [0.5, 1.5).
    pub fn positive(&self, shape: &[usize]) -> (Tensor, Vec<f64>) {
        let data: Vec<f64> = self.reals(shape).1.iter().map(|x| 1.0 + x / 2.0).collect();
        (self.upload(shape, &data), data)
    }

    /// Bytes below a bound.
    pub fn bytes(&self, shape: &[usize], below: u64) -> (Tensor, Vec<u8>) {
        let n = shape.iter().product();
        let data: Vec<u8> = (0..n).map(|_| ((self.next() >> 20) % below) as u8).collect();
        (self.device.upload(shape, &data).unwrap(), data)
    }

    pub fn ints(&self, data: &[i32]) -> Tensor {
        self.device.upload(&[data.len()], data).unwrap()
    }

    pub fn upload(&self, shape: &[usize], data: &[f64]) -> Tensor {
        self.device.upload(shape, data).unwrap()
    }

    /// A tensor for results, filled with a value that must be overwritten.
    pub fn room(&self, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        self.device.upload(shape, &vec![1e30; n]).unwrap()
    }

    pub fn room_for_bytes(&self, shape: &[usize]) -> Tensor {
        self.device.upload(shape, &vec![77u8; shape.iter().product()]).unwrap()
    }

    pub fn read(&self, tensor: &Tensor) -> Vec<f64> {
        self.device.read(tensor).unwrap()
    }

    pub fn read_bytes(&self, tensor: &Tensor) -> Vec<u8> {
        self.device.read(tensor).unwrap()
    }
}

/// An odd number of blocks, which divides no size evenly.
pub const GRID: Grid = Grid { blocks: 5, threads: 64, shared: 0, flops: 0, part: None };

#[track_caller]
pub fn close(what: &str, got: &[f64], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        // This form fails on NaN.
        assert!((g - w).abs() <= 1e-9 * (1.0 + w.abs()), "{what}[{i}] is {g}, not {w}");
    }
    assert!(wanted.iter().any(|w| w.abs() > 1e-6), "{what}: all zero proves nothing");
}

/// Iterates over all index tuples of a shape, in row-major order.
pub fn each<const N: usize>(shape: [usize; N]) -> impl Iterator<Item = [usize; N]> {
    (0..shape.iter().product::<usize>()).map(move |mut i| {
        let mut index = [0; N];
        for d in (0..N).rev() {
            index[d] = i % shape[d];
            i /= shape[d];
        }
        index
    })
}

/// The row-major offset of an index tuple.
pub fn at<const N: usize>(shape: [usize; N], index: [usize; N]) -> usize {
    shape.iter().zip(index).fold(0, |sum, (&side, i)| {
        assert!(i < side, "{index:?} of {shape:?}");
        sum * side + i
    })
}

/// The two inputs that output `o` of a bilinear resize interpolates, and their weights.
pub fn taps(o: usize, ratio: f64, inputs: usize) -> [(usize, f64); 2] {
    let s = (ratio * (o as f64 + 0.5) - 0.5).max(0.0);
    let low = (s as usize).min(inputs - 1);
    let upper = if low + 1 < inputs { s - low as f64 } else { 0.0 };
    [(low, 1.0 - upper), ((low + 1).min(inputs - 1), upper)]
}

/// The same generator as in `kernels/random.cuh`.
pub fn uniform_of(key: u64, stream: u64, element: u64) -> f64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let scrambled = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let seeded = scrambled(key.wrapping_add(GOLDEN.wrapping_mul(stream + 1)));
    let bits = scrambled(seeded.wrapping_add(GOLDEN.wrapping_mul(element + 1)));
    (bits >> 40) as f64 / 16_777_216.0
}

/// Each channel is high over a third of the circle around its own hue, and falls off over a sixth
/// on either side.
fn rgb([hue, saturation, value]: [f64; 3]) -> [f64; 3] {
    [0.0, 1.0 / 3.0, 2.0 / 3.0].map(|own| {
        let away = (hue - own + 0.5).rem_euclid(1.0) - 0.5;
        let share = (2.0 - 6.0 * away.abs()).clamp(0.0, 1.0);
        value * (1.0 - saturation * (1.0 - share))
    })
}

/// Applies brightness, contrast, saturation and hue to a color in [0, 1] in the given `order`;
/// negative entries are skipped.
pub fn jittered(color: [f64; 3], factors: &[f64], order: &[i32]) -> [f64; 3] {
    order.iter().fold(color, |color, what| {
        let [h, s, v] = hsv(color);
        match what {
            0 => color.map(|x| (x + factors[0] - 1.0).clamp(0.0, 1.0)),
            1 => color.map(|x| (x * factors[1]).clamp(0.0, 1.0)),
            2 => rgb([h, (s * factors[2]).clamp(0.0, 1.0), v]),
            3 => rgb([(h + factors[3]).rem_euclid(1.0), s, v]),
            _ => color,
        }
    })
}

/// x·Φ(x).
pub fn gelu(x: f64) -> f64 {
    x * normal_cdf(x)
}

pub fn gelu_derivative(x: f64) -> f64 {
    normal_cdf(x) + x * density(x)
}

/// Φ(x) = ½ + ∫ φ from 0 to x, by Simpson's rule.
fn normal_cdf(x: f64) -> f64 {
    // Beyond ±9, Φ is 0 or 1 to the last bit.
    let x = x.clamp(-9.0, 9.0);
    let steps = 2000;
    let h = x / steps as f64;
    let weight = |i: usize| if i == 0 || i == steps { 1.0 } else { 2.0 + (i % 2 * 2) as f64 };
    let sum: f64 = (0..=steps).map(|i| weight(i) * density(i as f64 * h)).sum();
    0.5 + sum * h / 3.0
}

fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}
