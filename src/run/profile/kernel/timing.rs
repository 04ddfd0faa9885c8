//! Times a launch, on tensors that have left every cache or that stay there.

use std::time::{Duration, Instant};

use super::launches::Kernel;
use super::tensors::Set;
use crate::Result;
use crate::device::profile::Argument;
use crate::device::{Device, Kernel as Code};

/// How many times the tensors fill the last cache before any is used again.
const ROTATIONS: usize = 4;
/// The last cache where the device does not tell: more than any GPU of today has.
const USUAL_CACHE: usize = 128 << 20;
/// Most sets of tensors; the launches of tiny kernels are slower than any memory.
const MOST_SETS: usize = 4096;
/// The share of the memory left that the sets may take, as a divisor.
const SHARE: usize = 4;

/// Where a kernel finds its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// In memory: every launch has other tensors, which were last used when the caches held others.
    Cold,
    /// Where the launch before has left them.
    Hot,
}

/// When there are enough samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Where tensors are.
    pub caches: Caches,
    /// Least number of samples.
    pub least: usize,
    /// Samples are taken until their standard deviation is at most this share of their mean …
    pub max_noise: f64,
    /// … or until they have taken this long.
    pub time: Duration,
}

/// The times of a launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Seconds of a launch, each sample the mean over `sets` launches one after another.
    pub samples: Vec<f64>,
    /// Number of sets of tensors that the launches went through.
    pub sets: usize,
}

impl Timing {
    /// Returns the shortest sample.
    pub fn least(&self) -> f64 {
        self.samples.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Returns the median of the samples.
    pub fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Returns the standard deviation of the samples as a share of their mean.
    pub fn noise(&self) -> f64 {
        let n = self.samples.len() as f64;
        let mean = self.samples.iter().sum::<f64>() / n;
        let squares: f64 = self.samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        (squares / (n - 1.0).max(1.0)).sqrt() / mean
    }
}

impl Kernel {
    /// Launches the kernel once, without warming up or measuring, for other profilers.
    pub fn once(&self, device: &Device) -> Result<()> {
        Set::new(device, &self.launch)?.run(device, &self.launch, self.launch.kernel)?;
        device.synchronize()
    }

    /// Times the kernel.
    pub fn time(&self, device: &Device, sampling: Sampling) -> Result<Timing> {
        let mut timings = self.time_versions(device, &[self.launch.kernel], sampling)?;
        Ok(timings.remove(0))
    }

    /// Times several versions of the kernel in turns, so that all meet the same conditions.
    pub(super) fn time_versions(
        &self,
        device: &Device,
        versions: &[&'static Code],
        sampling: Sampling,
    ) -> Result<Vec<Timing>> {
        let sets = (0..self.sets(device, sampling.caches))
            .map(|_| Set::new(device, &self.launch))
            .collect::<Result<Vec<_>>>()?;
        let sample = |version: &'static Code| {
            let all = || sets.iter().try_for_each(|set| set.run(device, &self.launch, version));
            let (result, profile) = device.profile(all)?;
            result.map(|()| profile.seconds / sets.len() as f64)
        };
        // The first launch may compile or load the kernel.
        for version in versions {
            sample(version)?;
        }
        let mut timings = vec![Timing { samples: Vec::new(), sets: sets.len() }; versions.len()];
        let (begun, least) = (Instant::now(), sampling.least.max(1));
        loop {
            for (timing, version) in timings.iter_mut().zip(versions) {
                timing.samples.push(sample(version)?);
            }
            let enough = timings[0].samples.len() >= least;
            let calm = timings.iter().all(|timing| timing.noise() <= sampling.max_noise);
            if enough && (calm || begun.elapsed() >= sampling.time) {
                return Ok(timings);
            }
        }
    }

    fn sets(&self, device: &Device, caches: Caches) -> usize {
        if caches == Caches::Hot {
            return 1;
        }
        let one = self.footprint().max(1);
        let wanted = (ROTATIONS * device.last_cache().unwrap_or(USUAL_CACHE)).div_ceil(one);
        let room = device.available_memory().map_or(usize::MAX, |(left, _)| left / SHARE / one);
        // With a single set, the end of a launch's tensors would still be in the caches.
        wanted.max(2).min(room).clamp(1, MOST_SETS)
    }

    /// Returns the bytes of all tensors of a launch.
    fn footprint(&self) -> usize {
        self.launch.arguments.iter().map(Argument::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_relative_to_the_mean() {
        let timing = |samples: &[f64]| Timing { samples: samples.into(), sets: 1 };
        assert_eq!(timing(&[2.0]).noise(), 0.0);
        assert_eq!(timing(&[2.0, 2.0, 2.0]).noise(), 0.0);
        assert!((timing(&[9.0, 10.0, 11.0]).noise() - 0.1).abs() < 1e-12);
        let skewed = timing(&[3.0, 1.0, 2.0]);
        assert_eq!((skewed.least(), skewed.median()), (1.0, 2.0));
    }
}
