//! Tests whole training steps: every iteration on the stand-in is bit-identical to the host
//! device's.

use tempfile::tempdir;
use udass_raw::checkpoint::files;
use udass_raw::checkpoint::state::{self, Position};
use udass_raw::config::Config;
use udass_raw::data::loader::Loader;
use udass_raw::device::cuda::{Driver, Stream};
use udass_raw::device::profile::Call;
use udass_raw::device::{Device, Precision, Types};
use udass_raw::nn::{BatchNormMode, Pass};
use udass_raw::ops;
use udass_raw::run::profile::{Predicted, Rates, Synthetic, predict};
use udass_raw::run::train::initial_state;
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};
use udass_raw::uda::inputs::StepInputs;
use udass_raw::uda::report::Report;
use udass_raw::uda::state::TrainingState;
use udass_raw::uda::submit::PendingStep;
use udass_raw::uda::trace::Trace;

use crate::stand_in::{self, StandIn};

#[allow(dead_code)] // The tests here use only a part of it.
#[path = "../runs/support.rs"]
pub mod support;

/// In each phase, the first iteration runs eagerly, the second is captured, and the others are
/// replayed.
pub const ITERATIONS: u64 = 7;

/// The run switches from MIC to QuadMix, with dropout, jitter and blur on.
pub fn config_with(preset: &str, more: &[&str]) -> Config {
    let more = ["quadmix.start=3"].iter().chain(more).map(|set| set.to_string());
    Config::load(preset, &support::settings().into_iter().chain(more).collect::<Vec<_>>()).unwrap()
}

fn config(preset: &str) -> Config {
    config_with(preset, &[])
}

fn iterate(training: &mut TrainingState, config: &Config, from: u64, to: u64) -> Vec<Report> {
    let mut loader = Loader::new(config, from).unwrap();
    let one = |iteration| training.step(&loader.next().unwrap(), iteration).unwrap();
    (from..to).map(one).collect()
}

/// Returns the bits of all state that an iteration passes on to the next.
pub fn state(training: &TrainingState) -> Vec<(&'static str, Vec<u32>)> {
    let device = &training.device;
    let teacher = training.teacher.as_ref().unwrap();
    let parts = [
        ("student", &training.student.values),
        ("student's statistics", &training.student.buffers),
        ("teacher", &teacher.values),
        ("teacher's statistics", &teacher.buffers),
        ("exp_avg", &training.optimizer.exp_avg),
        ("exp_avg_sq", &training.optimizer.exp_avg_sq),
        ("template image", &training.templates.source.image),
        ("template target image", &training.templates.target.image),
    ];
    let bits = |tensor| device.read_f32(tensor).unwrap().into_iter().map(f32::to_bits).collect();
    parts.map(|(name, tensor)| (name, bits(tensor))).into_iter().collect()
}

pub fn assert_same_state(preset: &str, one: &TrainingState, other: &TrainingState) {
    for ((name, one), (_, other)) in state(one).into_iter().zip(state(other)) {
        let differ = one.iter().zip(&other).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 0, "{preset}: {name}, of {} numbers", one.len());
        assert!(one.iter().any(|&bits| bits != one[0]) || name.contains("statistics"), "{name}");
    }
}

fn assert_finite(reports: &[Report]) {
    for report in reports {
        assert!(!report.failed && report.terms.iter().all(|(_, x)| x.is_finite()), "{report:?}");
    }
    let last = &reports.last().unwrap().terms;
    assert!(last.iter().any(|(name, _)| name == "mix_tst.decode.loss_seg"), "{last:?}");
}

#[test]
fn training_leaves_the_bits_of_the_host_device() {
    for preset in ["toy_vit", "toy_cnn"] {
        let config = config(preset);
        let host = Device::host(2).unwrap();
        let mut expected = initial_state::build(&config, &host, None).unwrap();
        let reports = iterate(&mut expected, &config, 0, ITERATIONS);
        assert_finite(&reports);

        let gpu = StandIn::new();
        let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
        let mut training = initial_state::build(&config, &device, None).unwrap();
        assert_eq!(iterate(&mut training, &config, 0, ITERATIONS), reports, "{preset}");
        assert_eq!(gpu.counts().replayed, ITERATIONS - 2, "{preset}");
        assert_same_state(preset, &training, &expected);
        assert!(gpu.counts().poisoned > 1000, "{:?}", gpu.counts());
        assert!(gpu.kernels().len() > 40, "{:?}", gpu.kernels());
    }
}

#[test]
fn low_precision_copies_follow_the_parameters_in_bf16() {
    let config = config("toy_vit");
    let host = Device::host_in(2, Precision::Bf16).unwrap();
    let mut expected = initial_state::build(&config, &host, None).unwrap();
    let reports = iterate(&mut expected, &config, 0, 4);
    assert_finite(&reports);

    let mut training = initial_state::build(&config, &stand_in::device(Types::Bf16), None).unwrap();
    assert_eq!(iterate(&mut training, &config, 0, 4), reports);
    assert_same_state("toy_vit", &training, &expected);
    for weights in [&training.student, training.teacher.as_ref().unwrap()] {
        let values = training.device.read_f32(&weights.values).unwrap();
        let low_precision =
            training.device.read_f32(weights.low_precision.as_ref().unwrap()).unwrap();
        let rounded = values.iter().map(|&x| half::bf16::from_f32(x).to_f32());
        assert!(rounded.eq(low_precision.iter().copied()));
        assert!(values != low_precision);
    }
}

#[test]
fn an_iteration_is_asked_for_without_waiting_and_sent_while_the_one_before_runs() {
    let config = config("toy_vit");
    let (gpu, mut training) = on_a_gpu(&config);
    let (all, uploads) = (Stream(0), Stream(1));
    let mut loader = Loader::new(&config, 0).unwrap();
    let mut pending: Option<PendingStep> = None;
    let mut reports = Vec::new();
    for iteration in 0..ITERATIONS {
        let before = gpu.counts();
        training.load(&loader.next().unwrap()).unwrap();
        let inputs = StepInputs::draw(&config, iteration, 0);
        if let Some(earlier) = &pending {
            // The whole batch arrives while the previous iteration is still pending.
            gpu.synchronize(uploads).unwrap();
            assert!(gpu.waiting_on(all) > 300, "{} calls wait", gpu.waiting_on(all));
            assert!(!earlier.is_done().unwrap());
        }
        let next = training.submit_with(&inputs, Trace::off()).unwrap();
        let counts = gpu.counts();
        let synchronized = counts.synchronized - u64::from(pending.is_some());
        assert_eq!((synchronized, counts.waited), (before.synchronized, before.waited));
        reports.extend(pending.replace(next).map(|earlier| training.wait(earlier).unwrap()));
        let waits = gpu.counts().waited - counts.waited;
        assert_eq!(waits, if iteration == 0 { 0 } else { 2 }, "the flag and the losses");
    }
    reports.push(training.wait(pending.unwrap()).unwrap());
    let (_, mut expected) = on_a_gpu(&config);
    assert_eq!(iterate(&mut expected, &config, 0, ITERATIONS), reports);
    assert_same_state("toy_vit", &training, &expected);
}

#[test]
fn an_iteration_after_one_that_failed_keeps_nothing_either() {
    let config = config("toy_vit");
    let (gpu, host) = (on_a_gpu(&config).1, Device::host(2).unwrap());
    for mut training in [gpu, initial_state::build(&config, &host, None).unwrap()] {
        let mut loader = Loader::new(&config, 0).unwrap();
        let mut submit = |training: &mut TrainingState, iteration: u64| {
            training.load(&loader.next().unwrap()).unwrap();
            let mut inputs = StepInputs::draw(&config, iteration, 0);
            if iteration == 5 {
                inputs.augment[0].factors[0] = f32::NAN;
            }
            training.submit_with(&inputs, Trace::off()).unwrap()
        };
        for iteration in 0..5 {
            let pending = submit(&mut training, iteration);
            assert!(!training.wait(pending).unwrap().failed);
        }
        let before = state(&training);
        let (failing, next) = (submit(&mut training, 5), submit(&mut training, 6));
        let report = training.wait(failing).unwrap();
        assert!(report.failed && report.terms.iter().any(|(_, x)| x.is_nan()), "{report:?}");
        assert_eq!(training.templates.iteration, Some(4));
        drop(next);
        assert!(state(&training) == before, "{}", training.device.describe());
    }
}

#[test]
fn a_checkpoint_moves_between_devices() {
    let config = config("toy_vit");
    let device = stand_in::device(Types::F32);
    let mut whole = initial_state::build(&config, &device, None).unwrap();
    let reports = iterate(&mut whole, &config, 0, ITERATIONS);
    assert_finite(&reports);

    let folder = tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    let mut half = initial_state::build(&config, &stand_in::device(Types::F32), None).unwrap();
    iterate(&mut half, &config, 0, 2);
    state::save(&path, &mut half, &Position { next: 2, ..Position::default() }, None).unwrap();
    for device in [stand_in::device(Types::F32), Device::host(2).unwrap()] {
        let file = files::open(&path).unwrap();
        let mut rest = initial_state::build(&config, &device, Some(&file)).unwrap();
        assert_eq!(state::load(&file, &mut rest).unwrap().next, 2);
        let going_on = iterate(&mut rest, &config, 2, ITERATIONS);
        assert_eq!(going_on, reports[2..], "{}", device.describe());
        assert_same_state("toy_vit", &rest, &whole);
    }
}

/// Builds a learner on a stand-in GPU, and returns both.
pub fn on_a_gpu(config: &Config) -> (StandIn, TrainingState) {
    let gpu = StandIn::new();
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    (gpu, initial_state::build(config, &device, None).unwrap())
}

#[test]
fn a_replayed_iteration_computes_what_one_that_is_asked_for_does() {
    let (gpu, mut replayed) = on_a_gpu(&config("toy_vit"));
    let config = config_with("toy_vit", &["device.cuda_graph=false"]);
    let (eager_gpu, mut eager) = on_a_gpu(&config);
    let reports = iterate(&mut eager, &config, 0, ITERATIONS);
    assert_finite(&reports);
    assert_eq!(iterate(&mut replayed, &config, 0, ITERATIONS), reports);
    assert_same_state("toy_vit", &replayed, &eager);
    assert_eq!((eager_gpu.counts().replayed, gpu.counts().replayed), (0, ITERATIONS - 2));
    // Activation checkpointing is captured as well.
    let recomputing = config_with("toy_vit", &["network.activation_checkpointing=true"]);
    let (_, mut checkpointed) = on_a_gpu(&recomputing);
    assert_eq!(iterate(&mut checkpointed, &recomputing, 0, ITERATIONS), reports);
    assert_same_state("toy_vit", &checkpointed, &eager);
    let joined = config_with("toy_vit", &["network.batch_student_passes=true"]);
    let ((_, mut on_gpu), host) = (on_a_gpu(&joined), Device::host(2).unwrap());
    let mut on_host = initial_state::build(&joined, &host, None).unwrap();
    let reports = iterate(&mut on_host, &joined, 0, ITERATIONS);
    assert_eq!(iterate(&mut on_gpu, &joined, 0, ITERATIONS), reports);
    assert_same_state("toy_vit", &on_gpu, &on_host);
    // The two phases run one after the other, and their graphs share memory: capturing both needs
    // no more than capturing one, which takes 6 % of the total here, except for gaps between a
    // capture's tensors.
    let (eager, replayed) = (eager.device.memory(), replayed.device.memory());
    let more = replayed.peak as f64 / eager.peak as f64 - 1.0;
    assert!(more < 0.03, "{replayed:?}, {eager:?}");
}

#[test]
fn memory_of_recorded_iterations_is_nobody_elses() {
    let config = config("toy_vit");
    let (_, mut undisturbed) = on_a_gpu(&config);
    let reports = iterate(&mut undisturbed, &config, 0, ITERATIONS);
    let (gpu, mut training) = on_a_gpu(&config);
    let device = training.device.clone();
    let mut loader = Loader::new(&config, 0).unwrap();
    let mut kept = Vec::new();
    for (iteration, report) in reports.iter().enumerate() {
        let batch = loader.next().unwrap();
        assert_eq!(&training.step(&batch, iteration as u64).unwrap(), report);
        // Allocates tensors of all sizes between two iterations and, as an evaluation does,
        // transient memory.
        kept.extend((4..22).map(|power| device.zeros(&[1 << power], DType::U8).unwrap()));
        device.graph_private(|| {
            let image = ops::full(&device, &[1, 64, 96, 3], 0.5).unwrap();
            let tape = Tape::inference(&device);
            let pass = Pass {
                tape: &tape,
                weights: &training.student,
                batch_norm: BatchNormMode::Eval,
                dropout_rng: None,
            };
            training.network.logits(&pass, &image).unwrap();
        });
    }
    assert_same_state("toy_vit", &training, &undisturbed);
    assert_eq!(gpu.counts().replayed, ITERATIONS - 2);
    let used = device.memory().used;
    drop((kept, training, undisturbed));
    let left = device.memory();
    assert!(left.used < used / 100, "{left:?}, {used} before");
}

#[test]
fn iterations_that_are_shown_run_between_replays_in_the_same_memory() {
    let config = config("toy_vit");
    let (_, mut replayed) = on_a_gpu(&config);
    let reports = iterate(&mut replayed, &config, 0, ITERATIONS);
    let (gpu, mut training) = on_a_gpu(&config);
    let device = training.device.clone();
    let mut loader = Loader::new(&config, 0).unwrap();
    let shown = |iteration: u64| iteration == 0 || iteration % 3 == 2;
    for iteration in 0..ITERATIONS {
        let batch = loader.next().unwrap();
        if !shown(iteration) {
            assert_eq!(training.step(&batch, iteration).unwrap(), reports[iteration as usize]);
            continue;
        }
        training.load(&batch).unwrap();
        let inputs = StepInputs::draw(&config, iteration, 0);
        let mut seen = Vec::new();
        let mut read = |name: &str, tensor: &Tensor| {
            seen.push(name.to_owned());
            match tensor.dtype() {
                DType::U8 => device.read::<u8>(tensor).map(drop),
                _ => device.read_f32(tensor).map(drop),
            }
        };
        let report = training.step_with(&inputs, Trace::brief(&mut read)).unwrap();
        assert_eq!(report, reports[iteration as usize]);
        for name in ["src.img", "target.img", "teacher/max_prob", "masked.label"] {
            assert!(seen.iter().any(|known| known == name), "{name} in {seen:?}");
        }
        assert!(!seen.iter().any(|name| name.starts_with("quad/tss")), "{seen:?}");
    }
    assert_same_state("toy_vit", &training, &replayed);
    // A warm-up of each kind, and those that were shown, are no replays.
    let shown = (0..ITERATIONS).filter(|&iteration| shown(iteration)).count() as u64;
    assert_eq!(gpu.counts().replayed, ITERATIONS - 2 - shown);
    let (one, other) = (training.device.memory(), replayed.device.memory());
    let more = one.peak as f64 / other.peak as f64 - 1.0;
    assert!(more < 0.01, "{one:?}, {other:?}");
}

#[test]
fn who_looks_into_an_iteration_sees_it_run() {
    let config = config("toy_vit");
    let (gpu, mut training) = on_a_gpu(&config);
    let device = training.device.clone();
    let mut loader = Loader::new(&config, 0).unwrap();
    for iteration in 0..3 {
        training.load(&loader.next().unwrap()).unwrap();
        let inputs = StepInputs::draw(&config, iteration, 0);
        let mut seen = 0;
        let mut count = |_: &str, tensor: &Tensor| {
            seen +=
                usize::from(tensor.dtype() == DType::F32 && !device.read_f32(tensor)?.is_empty());
            Ok(())
        };
        training.step_with(&inputs, Trace::to(&mut count)).unwrap();
        assert!(seen > 5);
    }
    for iteration in 3..6 {
        let batch = loader.next().unwrap();
        let (report, profile) = device.profile(|| training.step(&batch, iteration)).unwrap();
        report.unwrap();
        assert!(profile.calls.len() > 40);
    }
    assert_eq!(gpu.counts().replayed, 0);
}

#[test]
fn what_is_predicted_of_an_iteration_is_what_it_asks_for() {
    for precision in [Precision::F32, Precision::Bf16] {
        let set = format!("device.precision={}", format!("{precision:?}").to_lowercase());
        let config = config_with("toy_vit", &[&set]);
        let rates = Rates { memory: 2e12, matrix: 4e14 };
        let predicted = predict(&config, "toy_vit", Predicted::Bound(rates)).unwrap().profile.calls;
        let device = stand_in::device_in(precision);
        let mut training = Synthetic::new(&device, &config).unwrap();
        training.step().unwrap();
        let (result, profile) = device.profile(|| training.step()).unwrap();
        result.unwrap();
        let seen = |calls: &[Call]| -> Vec<String> {
            let told = |c: &Call| format!("{} {:?} {} {}", c.work, c.place, c.bytes, c.flops);
            calls.iter().map(told).collect()
        };
        assert_eq!(seen(&predicted), seen(&profile.calls));
        for call in &predicted {
            assert_eq!(call.seconds, (call.bytes / 2e12).max(call.flops / 4e14));
        }
    }
}
