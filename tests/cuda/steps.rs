//! Whole training: on the stand-in every iteration leaves the bits that the host device leaves.

use tempfile::tempdir;
use udass_raw::config::Config;
use udass_raw::data::loader::Loader;
use udass_raw::device::{Device, Precision, Types};
use udass_raw::run::build;
use udass_raw::run::checkpoint::{self, Position};
use udass_raw::uda::inputs::StepInputs;
use udass_raw::uda::step::{Learner, Report};

use crate::stand_in::{self, StandIn};

#[allow(dead_code)] // the other half of it runs the program
#[path = "../runs/support.rs"]
mod support;

/// Crosses from MIC to QuadMix with dropping, jitter and blur on.
fn config(preset: &str) -> Config {
    let sets = support::settings().into_iter().chain(["quadmix.start=2".to_string()]);
    Config::load(preset, &sets.collect::<Vec<_>>()).unwrap()
}

fn iterate(learner: &mut Learner, config: &Config, from: u64, to: u64) -> Vec<Report> {
    let mut loader = Loader::new(config, from).unwrap();
    let one = |iteration| {
        let batch = learner.upload(&loader.next().unwrap()).unwrap();
        learner.step(&batch, &StepInputs::draw(config, iteration), None).unwrap()
    };
    (from..to).map(one).collect()
}

/// Bits of everything that an iteration leaves to the next.
fn state(learner: &Learner) -> Vec<(&'static str, Vec<u32>)> {
    let device = &learner.device;
    let teacher = learner.teacher.as_ref().unwrap();
    let parts = [
        ("student", &learner.student.values),
        ("student's statistics", &learner.student.buffers),
        ("teacher", &teacher.values),
        ("teacher's statistics", &teacher.buffers),
        ("exp_avg", &learner.optimizer.exp_avg),
        ("exp_avg_sq", &learner.optimizer.exp_avg_sq),
        ("template image", &learner.templates.source.image),
        ("template target image", &learner.templates.target.image),
    ];
    let bits = |tensor| device.read_f32(tensor).unwrap().into_iter().map(f32::to_bits).collect();
    parts.map(|(name, tensor)| (name, bits(tensor))).into_iter().collect()
}

fn assert_same_state(preset: &str, one: &Learner, other: &Learner) {
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
        let mut expected = build::learner(&config, &host, None).unwrap();
        let reports = iterate(&mut expected, &config, 0, 4);
        assert_finite(&reports);

        let gpu = StandIn::new();
        let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
        let mut learner = build::learner(&config, &device, None).unwrap();
        assert_eq!(iterate(&mut learner, &config, 0, 4), reports, "{preset}");
        assert_same_state(preset, &learner, &expected);
        assert!(gpu.counts().poisoned > 1000, "{:?}", gpu.counts());
        assert!(gpu.kernels().len() > 40, "{:?}", gpu.kernels());
    }
}

#[test]
fn shadows_follow_the_parameters_in_bf16() {
    let config = config("toy_vit");
    let host = Device::host_in(2, Precision::Bf16).unwrap();
    let mut expected = build::learner(&config, &host, None).unwrap();
    let reports = iterate(&mut expected, &config, 0, 4);
    assert_finite(&reports);

    let mut learner = build::learner(&config, &stand_in::device(Types::Bf16), None).unwrap();
    assert_eq!(iterate(&mut learner, &config, 0, 4), reports);
    assert_same_state("toy_vit", &learner, &expected);
    for weights in [&learner.student, learner.teacher.as_ref().unwrap()] {
        let values = learner.device.read_f32(&weights.values).unwrap();
        let shadow = learner.device.read_f32(weights.shadow.as_ref().unwrap()).unwrap();
        let rounded = values.iter().map(|&x| half::bf16::from_f32(x).to_f32());
        assert!(rounded.eq(shadow.iter().copied()));
        assert!(values != shadow);
    }
}

#[test]
fn a_step_waits_for_the_gpu_only_to_report() {
    let config = config("toy_vit");
    let gpu = StandIn::new();
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    let mut learner = build::learner(&config, &device, None).unwrap();
    let mut loader = Loader::new(&config, 0).unwrap();
    for iteration in 0..4 {
        let batch = learner.upload(&loader.next().unwrap()).unwrap();
        let before = gpu.counts();
        learner.step(&batch, &StepInputs::draw(&config, iteration), None).unwrap();
        let waits = gpu.counts().synchronized - before.synchronized;
        assert_eq!(waits, 2, "the flag and the losses, at the end of iteration {iteration}");
    }
}

#[test]
fn a_checkpoint_moves_between_devices() {
    let config = config("toy_vit");
    let device = stand_in::device(Types::F32);
    let mut whole = build::learner(&config, &device, None).unwrap();
    let reports = iterate(&mut whole, &config, 0, 4);
    assert_finite(&reports);

    let folder = tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    let mut half = build::learner(&config, &stand_in::device(Types::F32), None).unwrap();
    iterate(&mut half, &config, 0, 2);
    checkpoint::save(&path, &mut half, &Position { next: 2, ..Position::default() }, None).unwrap();
    for device in [stand_in::device(Types::F32), Device::host(2).unwrap()] {
        let file = checkpoint::open(&path).unwrap();
        let mut rest = build::learner(&config, &device, Some(&file)).unwrap();
        assert_eq!(checkpoint::load(&file, &mut rest).unwrap().next, 2);
        assert_eq!(iterate(&mut rest, &config, 2, 4), reports[2..], "{}", device.describe());
        assert_same_state("toy_vit", &rest, &whole);
    }
}
