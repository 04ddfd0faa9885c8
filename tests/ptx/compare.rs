//! What the results of PTX may differ in from those of the serial build.
//!
//! *To the bit.* With `-fmad=false`, nvcc fuses only where the source says `fma_of`, as the serial
//! build does. Its additions are in the order of the block's threads, so the results of such PTX
//! are equal to the bit. Excepted are kernels that use the special function unit, tensor cores, or
//! CUDA's logarithm, which is another one than the C library's.
//!
//! *Within rounding.* As compiled for production, nvcc fuses multiplications with additions, and
//! the special function unit may be off by as much as documented (`Approximation::Worst`). A fused
//! operation rounds once instead of twice, so the error of its result is bounded by no more than
//! that of the serial build. This bound is not known, but the serial build's error against double
//! precision is a sample of it, in each element of a tensor; as elsewhere in the project, twice the
//! largest one is allowed. Because a small tensor is a small sample, the error that any result can
//! have is allowed as well: that of its last operations, in units of the largest element. It is two
//! roundings on either side, or what the instructions that the kernel uses document.
//!
//! *Tensor cores* round in other places than a single thread does, and leave other numbers in rows
//! that nothing reads. The cases of attention_mma.rs hold what attention computes with them to
//! bounds that follow from each rounding.

// `!(a <= b)` is deliberate: unlike `a > b`, it is true for NaN.
#![allow(clippy::neg_cmp_op_on_partial_ord)]

use crate::memory::{Content, Copied};

/// Relative error of a rounding in single precision.
const ROUNDING: f64 = 1.0 / (1u64 << 24) as f64;

/// Returns the relative error that the instructions of a kernel document. `ex2.approx` is off by up
/// to 2^-22, four roundings, and a quotient of two such results (a softmax) by twice as much.
fn documented(approximates: bool) -> f64 {
    let approximations = if approximates { 2.0 * 4.0 * ROUNDING } else { 0.0 };
    4.0 * ROUNDING + approximations
}

/// Requires equal bits, except in NaN, of which there are many.
pub fn exactly(got: &[Copied], serial: &[Copied]) -> Result<(), String> {
    for (got, serial) in got.iter().zip(serial) {
        let differs: Vec<usize> = match (&got.content, &serial.content) {
            (Content::Numbers { values: g, .. }, Content::Numbers { values: s, .. }) => {
                let same =
                    |g: f64, s: f64| g.to_bits() == s.to_bits() || (g.is_nan() && s.is_nan());
                (0..g.len()).filter(|&i| !same(g[i], s[i])).collect()
            }
            _ => integers_that_differ(got, serial),
        };
        if let Some(&at) = differs.first() {
            return Err(format!(
                "`{}`[{at}] is {}, the serial build gives {} ({} elements differ)",
                got.name,
                got.show(at),
                serial.show(at),
                differs.len()
            ));
        }
    }
    Ok(())
}

/// Requires that results are within rounding of those in double precision. `approximates` says that
/// the kernel uses the special function unit.
pub fn within(
    got: &[Copied],
    serial: &[Copied],
    exact: &[Copied],
    approximates: bool,
) -> Result<(), String> {
    for ((got, serial), exact) in got.iter().zip(serial).zip(exact) {
        let (g, s, e) = match (&got.content, &serial.content, &exact.content) {
            (
                Content::Numbers { values: g, .. },
                Content::Numbers { values: s, .. },
                Content::Numbers { values: e, .. },
            ) => (g, s, e),
            _ => match integers_that_differ(got, serial).first() {
                None => continue,
                Some(&at) => {
                    let (name, got, serial) = (&got.name, got.show(at), serial.show(at));
                    return Err(format!(
                        "`{name}`[{at}] is {got}, the serial build gives {serial}"
                    ));
                }
            },
        };
        let largest = |of: &dyn Fn(usize) -> f64| {
            (0..e.len()).map(of).filter(|x| x.is_finite()).fold(0.0, f64::max)
        };
        let error = largest(&|i| (s[i] - e[i]).abs());
        let size = largest(&|i| e[i].abs());
        let bound = 2.0 * error + documented(approximates) * size;
        for i in 0..e.len() {
            let off = (g[i] - e[i]).abs();
            // What is not finite, or was not written, is equal in both builds.
            let same = g[i].to_bits() == s[i].to_bits() || (g[i].is_nan() && s[i].is_nan());
            if !same && !(off <= bound) {
                return Err(format!(
                    "`{}`[{i}] is {:e}, exactly {:e}: off by {off:.2e}, more than {bound:.2e} \
                     (the serial build gives {:e} and is off by up to {error:.2e})",
                    got.name, g[i], e[i], s[i]
                ));
            }
        }
    }
    Ok(())
}

fn integers_that_differ(got: &Copied, serial: &Copied) -> Vec<usize> {
    match (&got.content, &serial.content) {
        (Content::Integers { bytes: g, width }, Content::Integers { bytes: s, .. }) => {
            let pairs = g.chunks(*width).zip(s.chunks(*width)).enumerate();
            pairs.filter(|(_, (g, s))| g != s).map(|(at, _)| at).collect()
        }
        _ => vec![0],
    }
}

impl Copied {
    /// Shows an element.
    fn show(&self, at: usize) -> String {
        match &self.content {
            Content::Numbers { values, .. } => format!("{:e}", values[at]),
            Content::Integers { bytes, width } => {
                let mut all = [0; 8];
                all[..*width].copy_from_slice(&bytes[at * width..(at + 1) * width]);
                u64::from_le_bytes(all).to_string()
            }
        }
    }
}
