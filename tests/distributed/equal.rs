//! In double precision, some iterations of every method in one process and in several.

use udass_raw::config::Config;
use udass_raw::data::loader::Loader;
use udass_raw::device::Device;
use udass_raw::device::group::BatchNormOver;
use udass_raw::nn::Segmentor;
use udass_raw::params::Weights;
use udass_raw::tensor::Tensor;
use udass_raw::uda::state::TrainingState;

use crate::fabric::together;
use crate::support::settings;

/// Iterations, of which the last two use QuadMix.
const ITERATIONS: u64 = 3;
/// Rounding in double precision, through some iterations of AdamW.
const TOLERANCE: f64 = 1e-12;

/// What training leaves: every number of the state, and the losses of all iterations.
#[derive(PartialEq)]
struct Trained {
    state: Vec<(&'static str, Vec<f64>)>,
    losses: Vec<(String, f32)>,
}

pub fn config(preset: &str, method: &str, batch: usize, more: &[&str]) -> Config {
    let mut sets = settings();
    sets.extend([format!("data.batch={batch}"), "data.workers=1".into(), "quadmix.start=1".into()]);
    sets.extend(more.iter().map(|set| set.to_string()));
    Config::load_with(preset, Some(method), &sets).unwrap()
}

/// Trains with random weights, also where a pretrained network would be compared with.
fn train(device: &Device, config: &Config) -> Trained {
    let network = Segmentor::new(&config.network).unwrap();
    let weights = |seed, learns| {
        let mut weights = Weights::new(device, network.spec(), learns).unwrap();
        weights.initialize(device, seed).unwrap();
        weights
    };
    let (student, frozen) = (weights(1, true), weights(2, false));
    let frozen = config.feature_distance.enabled.then_some(frozen);
    let mut training = TrainingState::new(device, config, network, student, frozen).unwrap();
    let mut loader = Loader::sharing(config, 0, device.place()).unwrap();
    let mut losses = Vec::new();
    for iteration in 0..ITERATIONS {
        let report = training.step(&loader.next().unwrap(), iteration).unwrap();
        assert!(!report.failed && !report.stop);
        losses.extend(report.terms);
    }
    let read = |tensor: &Tensor| device.read::<f64>(tensor).unwrap();
    let mut state = vec![
        ("student", read(&training.student.values)),
        ("statistics", read(&training.student.buffers)),
        ("first moments", read(&training.optimizer.exp_avg)),
        ("second moments", read(&training.optimizer.exp_avg_sq)),
    ];
    if let Some(teacher) = &training.teacher {
        state.push(("teacher", read(&teacher.values)));
        state.push(("teacher's statistics", read(&teacher.buffers)));
    }
    Trained { state, losses }
}

fn in_processes(processes: usize, over: BatchNormOver, config: &Config) -> Trained {
    let device = || Device::host_f64().unwrap();
    let mut all = together(processes, over, device, |device| train(device, config));
    let first = all.remove(0);
    for (rank, other) in all.iter().enumerate() {
        assert!(first == *other, "process {} differs from process 0", rank + 1);
    }
    first
}

/// Returns the largest difference of a number, with the name of what it belongs to.
fn distance(a: &Trained, b: &Trained) -> (f64, &'static str) {
    let mut most = (0.0, "nothing");
    for ((name, a), (_, b)) in a.state.iter().zip(&b.state) {
        assert_eq!(a.len(), b.len(), "{name}");
        let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if apart > most.0 {
            most = (apart, name);
        }
    }
    most
}

#[track_caller]
fn assert_equal(processes: &[usize], config: &Config) {
    let alone = in_processes(1, BatchNormOver::All, config);
    for &processes in processes {
        let shared = in_processes(processes, BatchNormOver::All, config);
        let (apart, what) = distance(&alone, &shared);
        println!("{processes} processes: {apart:.1e} ({what})");
        assert!(apart <= TOLERANCE, "{processes} processes: {what} differs by {apart:e}");
        for (a, b) in alone.losses.iter().zip(&shared.losses) {
            assert_eq!(a.0, b.0);
            // Reported in single precision.
            assert!((a.1 - b.1).abs() <= 1e-6 * a.1.abs().max(1.0), "{a:?}, {b:?}");
        }
    }
}

macro_rules! methods {
    ($($name:ident: $preset:literal, $method:literal;)*) => {
        $(#[test]
        fn $name() {
            assert_equal(&[2, 4], &config($preset, $method, 4, &[]));
        })*
    };
}

methods! {
    source_only_on_a_transformer: "toy_vit", "source_only";
    dacs_on_a_transformer: "toy_vit", "dacs";
    daformer_on_a_transformer: "toy_vit", "daformer";
    hrda_on_a_transformer: "toy_vit", "hrda";
    mic_on_a_transformer: "toy_vit", "mic";
    quadmix_on_a_transformer: "toy_vit", "quadmix";
    source_only_on_a_resnet: "toy_cnn", "source_only";
    dacs_on_a_resnet: "toy_cnn", "dacs";
    daformer_on_a_resnet: "toy_cnn", "daformer";
    hrda_on_a_resnet: "toy_cnn", "hrda";
    mic_on_a_resnet: "toy_cnn", "mic";
    quadmix_on_a_resnet: "toy_cnn", "quadmix";
}

#[test]
fn passes_in_one_batch_and_recomputed_activations_drop_the_same() {
    let more = ["network.batch_student_passes=true", "network.activation_checkpointing=true"];
    assert_equal(&[2], &config("toy_vit", "quadmix", 2, &more));
}

#[test]
fn masked_images_of_both_domains_are_the_whole_batchs() {
    assert_equal(&[2, 4], &config("toy_vit", "mic", 4, &["mask.images=both"]));
    // The middle process has images of both domains: the source's second, the target's first.
    assert_equal(&[3], &config("toy_vit", "mic", 3, &["mask.images=both"]));
}

#[test]
fn three_processes_share_an_odd_batch() {
    assert_equal(&[3], &config("toy_vit", "quadmix", 3, &[]));
}

#[test]
fn batch_norm_by_rank_is_another_computation_but_one_state() {
    let config = config("toy_cnn", "dacs", 2, &[]);
    let alone = in_processes(1, BatchNormOver::Rank, &config);
    assert!(alone == in_processes(1, BatchNormOver::All, &config));
    let shared = in_processes(2, BatchNormOver::Rank, &config);
    let (apart, _) = distance(&alone, &shared);
    // Not rounding, so that the tests above would notice.
    assert!(apart > 1e-4, "{apart:e}");
}
