//! `udass-raw train --seeds`: a run for each seed, one after another, or side by side where there are
//! several GPUs.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::bail;
use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::run::comparison::Spread;
use udass_raw::run::eval::metrics::percent;
use udass_raw::run::train::signal::Stop;
use udass_raw::run::train::trainer::{End, Start, train};

use super::output::{print, tell};
use super::progress::Progress;

/// Returns a run's configuration for each seed, with a folder of its own.
pub fn configs(config: &Config, seeds: &[u64]) -> anyhow::Result<Vec<Config>> {
    let mut configs: Vec<Config> = Vec::with_capacity(seeds.len());
    for &seed in seeds {
        if configs.iter().any(|config| config.seed == seed) {
            bail!("--seeds: {seed} is there twice");
        }
        let mut config = config.clone();
        config.seed = seed;
        let mut out = config.run.out.into_os_string();
        out.push(format!("_seed{seed}"));
        config.run.out = PathBuf::from(out);
        for key in ["seed", "run.out"] {
            config.notes.set_origin(key, format!("--seeds {seed}"));
        }
        configs.push(config);
    }
    Ok(configs)
}

/// Trains all runs, each from its own start; a run that fails leaves the others alone. Once `stop` is
/// requested, no other run begins. Returns whether all have finished.
///
/// # Errors
/// Those of the runs that failed.
pub fn train_all(configs: &[Config], starts: Vec<Start>, stop: &Stop) -> anyhow::Result<bool> {
    let devices = devices(&configs[0])?;
    let ends = Mutex::new(Vec::new());
    let one = |index: usize, device: &str| {
        let mut config = configs[index].clone();
        if config.device.kind != device {
            config.device.kind = device.to_owned();
            config.notes.set_origin("device.kind", "--seeds, one of several GPUs".into());
        }
        let label = format!("seed {}", config.seed);
        let folder = config.run.out.display();
        tell(&format!("{label}: {folder}, run {} of {}", index + 1, configs.len()));
        let progress = match devices.len().min(configs.len()) {
            1 => Progress::new("it"),
            _ => Progress::labeled(&label, "it"),
        };
        let end = train(&config, starts[index].clone(), stop, &progress);
        progress.finish();
        if let Err(error) = &end {
            tell(&format!("{label}: failed: {error}"));
        }
        ends.lock().unwrap_or_else(|e| e.into_inner()).push((index, end));
    };
    side_by_side(configs.len(), &devices, stop, one);
    let mut ends = ends.into_inner().unwrap_or_else(|e| e.into_inner());
    ends.sort_by_key(|(index, _)| *index);
    summarize(configs, &ends)?;
    let failed = ends.iter().filter(|(_, end)| end.is_err());
    let failed: Vec<String> = failed.map(|(index, _)| configs[*index].seed.to_string()).collect();
    if !failed.is_empty() {
        bail!("{} of {} runs failed: seed {}", failed.len(), configs.len(), failed.join(", "));
    }
    let stopped = ends.iter().any(|(_, end)| matches!(end, Ok(End::Stopped)));
    Ok(!stopped && ends.len() == configs.len())
}

/// Calls `one` with each of `count` numbers and a device, on all devices at the same time, and on each
/// with one number after another. Once `stop` is requested, no other number begins.
fn side_by_side(count: usize, devices: &[String], stop: &Stop, one: impl Fn(usize, &str) + Sync) {
    let next = AtomicUsize::new(0);
    let (next, one) = (&next, &one);
    std::thread::scope(|scope| {
        for device in devices.iter().take(count) {
            scope.spawn(move || {
                while !stop.asked() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    one(index, device);
                }
            });
        }
    });
}

/// Prints the results of the runs that were evaluated at their end, with mean and standard deviation.
fn summarize(configs: &[Config], ends: &[(usize, udass_raw::Result<End>)]) -> anyhow::Result<()> {
    let mut results = Vec::new();
    for (index, end) in ends {
        let Config { seed, run, .. } = &configs[*index];
        let folder = run.out.display();
        match end {
            Ok(End::Finished(Some(report))) => {
                let mean = report.confusion.mean_iou();
                results.push(100.0 * mean);
                print(&format!("seed {seed}  mIoU {:.2}  {folder}", percent(mean)))?;
            }
            Ok(End::FinishedBefore) => tell(&format!("seed {seed}: {folder} had finished before")),
            _ => {}
        }
    }
    if results.len() > 1 {
        let mean = Spread::of(results.iter().copied()).shown(|value| format!("{value:.2}"));
        print(&format!("mIoU {mean} over {} seeds", results.len()))?;
    }
    Ok(())
}

/// Returns the devices that runs may use at the same time, as values of `device.kind`: all GPUs,
/// unless one of them is chosen.
fn devices(config: &Config) -> anyhow::Result<Vec<String>> {
    let kind = config.device.kind.as_str();
    let count = match kind {
        "auto" | "cuda" => Device::cuda_count()?,
        _ => 0,
    };
    Ok(match count {
        0 | 1 => vec![kind.to_owned()],
        _ => (0..count).map(|index| format!("cuda:{index}")).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn runs_share_the_devices() {
        let devices = ["cuda:0", "cuda:1"].map(String::from);
        let stop = Stop::new();
        // Goes on only while two run at the same time.
        let both = Barrier::new(2);
        let seen = Mutex::new(Vec::new());
        side_by_side(4, &devices, &stop, |index, device| {
            both.wait();
            seen.lock().unwrap().push((index, device.to_owned()));
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert_eq!(seen.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3]);
        for device in &devices {
            assert_eq!(seen.iter().filter(|(_, used)| used == device).count(), 2, "{seen:?}");
        }

        let begun = AtomicUsize::new(0);
        side_by_side(9, &devices[..1], &stop, |index, _| {
            begun.fetch_add(1, Ordering::Relaxed);
            if index == 2 {
                stop.ask();
            }
        });
        assert_eq!(begun.into_inner(), 3);
    }

    #[test]
    fn a_run_of_a_seed_has_its_own_folder() {
        let config = Config::load("toy_vit", &["run.out=some/where".into()]).unwrap();
        let configs = configs(&config, &[7, 0]).unwrap();
        let outs: Vec<_> =
            configs.iter().map(|config| (config.seed, config.run.out.clone())).collect();
        assert_eq!(outs, [(7, "some/where_seed7".into()), (0, "some/where_seed0".into())]);
        let explained = configs[0].explained().unwrap();
        assert!(explained.starts_with("seed = 7  # --seeds 7\n"), "{explained}");
        let error = super::configs(&config, &[1, 2, 1]).unwrap_err();
        assert_eq!(error.to_string(), "--seeds: 1 is there twice");
    }
}
