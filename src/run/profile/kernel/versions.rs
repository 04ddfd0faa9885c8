//! Compares a kernel with another version of it.

use std::path::{Path, PathBuf};

use super::launches::Kernel;
use super::tensors::Set;
use super::timing::{Sampling, Timing};
use crate::Result;
use crate::device::{Device, Kernel as Code};
use crate::tensor::{DType, Tensor};

/// A kernel next to another version of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The other version's file.
    pub file: PathBuf,
    /// Times of the other version.
    pub timing: Timing,
    /// How the results differ, by the name of each tensor that the kernel writes.
    pub differences: Vec<(&'static str, Differences)>,
}

/// How the elements of two tensors differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Differences {
    /// Number of elements.
    pub elements: usize,
    /// Number of elements that are not equal; NaN equals NaN.
    pub unequal: usize,
    /// The largest difference; infinite where one is NaN and the other is not.
    pub largest: f64,
    /// The largest magnitude in the program's own result.
    pub magnitude: f64,
}

impl Kernel {
    /// Times the kernel and the version in `file` in turns, and compares what they compute from the
    /// same tensors.
    ///
    /// # Errors
    /// The errors of [`Device::compile_kernel`].
    ///
    /// # Safety
    /// The file's code runs in this process: see [`Device::compile_kernel`].
    pub unsafe fn time_against(
        &self,
        device: &Device,
        file: &Path,
        sampling: Sampling,
    ) -> Result<(Timing, Comparison)> {
        let own = self.launch.kernel;
        // SAFETY: the caller vouches for the file.
        let other = unsafe { device.compile_kernel(own, file)? };
        let differences = self.differences(device, [own, other])?;
        let mut timings = self.time_versions(device, &[own, other], sampling)?.into_iter();
        let mut next = || timings.next().unwrap_or(Timing { samples: Vec::new(), sets: 0 });
        let (own, timing) = (next(), next());
        Ok((own, Comparison { file: file.into(), timing, differences }))
    }

    fn differences(
        &self,
        device: &Device,
        versions: [&'static Code; 2],
    ) -> Result<Vec<(&'static str, Differences)>> {
        let run = |version| {
            let set = Set::new(device, &self.launch)?;
            set.run(device, &self.launch, version)?;
            Ok::<_, crate::Error>(set)
        };
        let [own, other] = versions;
        let (own, other) = (run(own)?, run(other)?);
        let pairs = own.written(&self.launch).zip(other.written(&self.launch));
        pairs
            .map(|((name, a), (_, b))| {
                let (a, b) = (numbers(device, a)?, numbers(device, b)?);
                Ok((name, Differences::of(&a, &b)))
            })
            .collect()
    }
}

impl Differences {
    fn of(own: &[f64], other: &[f64]) -> Differences {
        let mut all = Differences { elements: own.len(), ..Differences::default() };
        for (&a, &b) in own.iter().zip(other) {
            if !a.is_nan() {
                all.magnitude = all.magnitude.max(a.abs());
            }
            if a == b || (a.is_nan() && b.is_nan()) {
                continue;
            }
            all.unequal += 1;
            let difference = (a - b).abs();
            let difference = if difference.is_nan() { f64::INFINITY } else { difference };
            all.largest = all.largest.max(difference);
        }
        all
    }
}

fn numbers(device: &Device, tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(match tensor.dtype() {
        DType::F32 | DType::Bf16 => device.read_f32(tensor)?.into_iter().map(f64::from).collect(),
        DType::F64 => device.read::<f64>(tensor)?,
        DType::U8 => device.read::<u8>(tensor)?.into_iter().map(f64::from).collect(),
        DType::I32 => device.read::<i32>(tensor)?.into_iter().map(f64::from).collect(),
        DType::I64 => device.read::<i64>(tensor)?.into_iter().map(|n| n as f64).collect(),
        DType::U64 => device.read::<u64>(tensor)?.into_iter().map(|n| n as f64).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_differs_from_what_is() {
        let nan = f64::NAN;
        let same = Differences::of(&[1.0, nan, -3.0], &[1.0, nan, -3.0]);
        assert_eq!((same.unequal, same.largest, same.magnitude), (0, 0.0, 3.0));
        let other = Differences::of(&[1.0, 2.0, 3.0], &[1.5, nan, 3.0]);
        assert_eq!((other.unequal, other.largest), (2, f64::INFINITY));
        assert_eq!(Differences::of(&[1.0, 2.0], &[1.5, 2.0]).largest, 0.5);
    }
}
