//! Lets everything that takes memory fail, one after the other: each failure is an error that says
//! what to do, changes and leaks nothing, and the same device goes on to the same bits.

use std::collections::BTreeSet;

use udass_raw::checkpoint::files;
use udass_raw::checkpoint::state::{self as saved, Position};
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::weights::Network;
use udass_raw::config::Config;
use udass_raw::data::Batch;
use udass_raw::data::eval::EvalSet;
use udass_raw::data::loader::Loader;
use udass_raw::device::{ALIGNMENT, Device, Types};
use udass_raw::run::build::trained;
use udass_raw::run::eval::evaluate::measure;
use udass_raw::run::eval::inference::Predictor;
use udass_raw::run::eval::metrics::Confusion;
use udass_raw::run::eval::report::Subject;
use udass_raw::run::train::initial_state;
use udass_raw::uda::state::TrainingState;
use udass_raw::{Error, Result};

use super::steps::{assert_same_state, config_with, on_a_gpu, state, support};
use crate::stand_in::StandIn;

/// Iterations: ClassMix, then QuadMix as it is asked for, captured and replayed.
const ITERATIONS: u64 = 4;
/// How many of an iteration's allocations fail.
const SAMPLES: u64 = 40;
fn config() -> Config {
    config_with("toy_vit", &["quadmix.start=1"])
}

fn batches(config: &Config) -> Vec<Batch> {
    let mut loader = Loader::new(config, 0).unwrap();
    (0..ITERATIONS).map(|_| loader.next().unwrap()).collect()
}

/// Writes a checkpoint after the first iteration, so that it holds templates too.
fn checkpoint(config: &Config, folder: &tempfile::TempDir) -> TensorFile {
    let path = folder.path().join("iteration_000001.safetensors");
    let mut training = initial_state::build(config, &Device::host(1).unwrap(), None).unwrap();
    training.step(&batches(config)[0], 0).unwrap();
    saved::save(&path, &mut training, &Position { next: 1, ..Position::default() }, None).unwrap();
    files::open(&path).unwrap()
}

fn resume(config: &Config, device: &Device, file: &TensorFile) -> Result<TrainingState> {
    let mut training = initial_state::build(config, device, Some(file))?;
    saved::load(file, &mut training)?;
    Ok(training)
}

/// Evaluates a checkpoint, and returns the counts of all classes.
fn evaluate(config: &Config, device: &Device, file: &TensorFile) -> Result<Confusion> {
    let (network, weights) = trained(config, device, file, Network::Student)?;
    let predictor = Predictor::new(device, &network, &weights, &config.eval)?;
    let set = EvalSet::new(&config.target, config.network.classes, config.eval.resize)?;
    let subject =
        Subject { config: "toy".into(), checkpoint: None, iteration: None, training: None };
    let report = measure(config, subject, &predictor, &set, &(), &mut |_, _, _| Ok(()))?;
    Ok(report.confusion)
}

/// Asserts that an error says that memory is lacking, and which settings need less of it or, for
/// what no setting changes, for what.
#[track_caller]
fn assert_told(error: &Error) {
    let told = error.to_string();
    let parts: &[&str] = match error {
        Error::OutOfMemory(_) => &["cannot allocate", "Less memory is needed with"],
        Error::Device(_) => &[": out of memory"],
        _ => panic!("{error:?}"),
    };
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
}

/// Returns numbers below `total`: the first and the last few, and an even spread of the others.
fn sample(total: u64) -> BTreeSet<u64> {
    let spread = (0..SAMPLES).map(|i| i * total / SAMPLES);
    spread.chain(0..24).chain(total.saturating_sub(8)..total).filter(|&n| n < total).collect()
}

/// Runs `work` on something, with memory for each of these numbers of allocations until it succeeds,
/// and in the end without a limit. Calls `failed` after each failure.
fn through_failures<T, R>(
    gpu: &StandIn,
    numbers: impl IntoIterator<Item = u64>,
    on: &mut T,
    mut work: impl FnMut(&mut T) -> Result<R>,
    mut failed: impl FnMut(&T, u64),
) -> R {
    for number in numbers {
        gpu.fail_after(Some(number));
        let result = work(on);
        gpu.fail_after(None);
        match result {
            Ok(result) => return result,
            Err(error) => assert_told(&error),
        }
        failed(on, number);
    }
    work(on).unwrap()
}

#[test]
fn what_fails_while_a_state_is_built_and_loaded_leaves_a_gpu_as_it_was() {
    let (config, folder) = (config(), support::folder());
    let file = checkpoint(&config, &folder);
    let whole = resume(&config, &Device::host(1).unwrap(), &file).unwrap();
    let gpu = StandIn::new();
    let create = |_: &mut ()| Device::cuda_through(Types::F32, Box::new(gpu.clone()));
    let mut device = through_failures(&gpu, 0.., &mut (), create, |_, _| {});
    let mut failures = 0;
    let build = |device: &mut Device| resume(&config, device, &file);
    let training = through_failures(&gpu, 0.., &mut device, build, |device, number| {
        failures += 1;
        assert_eq!(device.memory().used, 0, "after {number}");
    });
    assert!(failures > 30, "{failures}");
    assert_same_state("toy_vit", &training, &whole);
    drop((training, device));
    assert_eq!(gpu.blocks(), [0, 0]);
}

#[test]
fn what_fails_in_an_iteration_leaves_its_state_as_it_was_on_a_gpu() {
    let config = config();
    let (calm, mut undisturbed) = on_a_gpu(&config);
    let (gpu, mut training) = on_a_gpu(&config);
    for (batch, iteration) in batches(&config).iter().zip(0..) {
        let asked = calm.asked();
        let expected = undisturbed.step(batch, iteration).unwrap();
        let numbers = sample(calm.asked() - asked);
        // A network keeps where its windows are from its first pass on.
        let used = training.device.memory().used..=undisturbed.device.memory().used;
        let before = state(&training);
        let step = |training: &mut TrainingState| training.step(batch, iteration);
        let report = through_failures(&gpu, numbers, &mut training, step, |training, number| {
            assert!(state(training) == before, "iteration {iteration}, after {number}");
            let left = training.device.memory().used;
            assert!(
                used.contains(&left),
                "iteration {iteration}, after {number}: {left}, {used:?}"
            );
        });
        assert_eq!(training.device.memory().used, *used.end());
        assert_eq!(report, expected, "iteration {iteration}");
    }
    assert_same_state("toy_vit", &training, &undisturbed);
    assert_eq!(gpu.counts().replayed, 2);
    drop(training);
    assert_eq!(gpu.blocks(), [0, 0]);
}

#[test]
fn what_fails_in_an_evaluation_leaves_a_gpu_as_it_was() {
    let (config, folder) = (config(), support::folder());
    let file = checkpoint(&config, &folder);
    let gpu = StandIn::new();
    let mut device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    let asked = gpu.asked();
    let expected = evaluate(&config, &device, &file).unwrap();
    let numbers = sample(gpu.asked() - asked);
    let run = |device: &mut Device| evaluate(&config, device, &file);
    let counts = through_failures(&gpu, numbers, &mut device, run, |device, number| {
        assert_eq!(device.memory().used, 0, "after {number}");
    });
    assert_eq!(counts, expected);
    drop(device);
    assert_eq!(gpu.blocks(), [0, 0]);
}

/// Runs `work` on something and, if it fails for the device's memory limit, calls `failed` and runs it
/// again without one. Returns the most memory that was in use before the failure, too.
fn through_a_limit<T, R>(
    device: &Device,
    on: &mut T,
    mut work: impl FnMut(&mut T) -> Result<R>,
    failed: impl FnOnce(&T),
) -> (R, Option<usize>) {
    match work(on) {
        Ok(result) => (result, None),
        Err(error) => {
            assert_told(&error);
            let reached = device.memory().peak;
            device.set_memory_limit(None);
            failed(on);
            (work(on).unwrap(), Some(reached))
        }
    }
}

#[test]
fn what_fails_for_a_limit_leaves_a_state_as_it_was_on_the_host() {
    let (config, folder) = (config(), support::folder());
    let (file, batches) = (checkpoint(&config, &folder), batches(&config));
    let host = Device::host(1).unwrap();
    let mut undisturbed = resume(&config, &host, &file).unwrap();
    let (begun, peak) = (state(&undisturbed), host.memory().peak);
    let expected = undisturbed.step(&batches[1], 1).unwrap();
    let apart = (host.memory().peak - peak) / 16;
    // With a limit just below what was reached before, each allocation of the building that takes
    // more memory than ever before fails. An iteration has too many, so its limits are spread.
    let below = |reached: usize| Some(reached.saturating_sub(1) / ALIGNMENT * ALIGNMENT);
    let (mut limit, mut in_building, mut in_iterations) = (None, 0, 0);
    while limit != Some(0) {
        let device = Device::host(1).unwrap();
        device.set_memory_limit(limit);
        let build = |_: &mut ()| resume(&config, &device, &file);
        let is_empty = |_: &()| assert_eq!(device.memory().used, 0);
        let (mut training, reached) = through_a_limit(&device, &mut (), build, is_empty);
        assert!(state(&training) == begun, "{limit:?}");
        if let Some(reached) = reached {
            in_building += 1;
            limit = below(reached);
            continue;
        }
        // A network keeps where its windows are from its first pass on.
        let used = device.memory().used..=host.memory().used;
        let step = |training: &mut TrainingState| training.step(&batches[1], 1);
        let is_unchanged = |training: &TrainingState| {
            let left = device.memory().used;
            assert!(used.contains(&left), "{limit:?}: {left}, {used:?}");
            assert!(state(training) == begun, "{limit:?}");
        };
        let (report, reached) = through_a_limit(&device, &mut training, step, is_unchanged);
        assert_eq!(reached.is_some(), limit.is_some());
        in_iterations += 1;
        assert_eq!(device.memory().used, *used.end());
        assert_eq!(report, expected, "{limit:?}");
        assert_same_state("toy_vit", &training, &undisturbed);
        limit = below(limit.map_or(device.memory().peak, |limit: usize| limit - apart.min(limit)));
    }
    assert!(in_building > 20 && in_iterations > 10, "{in_building}, {in_iterations}");
}
