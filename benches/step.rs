//! Seconds of whole training iterations, on synthetic batches already in device memory: the work of
//! benches/pytorch/step.py, to which names and settings correspond. How to run: benches/record.rs.

// Each bench uses its own part of it.
#[allow(dead_code)]
mod record;

use serde_json::{Map, Value, json};
use udass_raw::config::Config;
use udass_raw::data::{Batch, Crops, RareCrops};
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::Weights;
use udass_raw::rng::{Draw, Purpose};
use udass_raw::uda::inputs::{StepInputs, Switches};
use udass_raw::uda::step::{DeviceBatch, Learner, initialize};

use record::{Amount, Case, Run};

const BATCH: usize = 2;
const CLASSES: usize = 19;
/// First iteration that mixes four ways, and one long before.
const QUADMIX: u64 = 6000;
const MIC: u64 = 4001;

#[derive(Clone)]
struct Setting {
    preset: &'static str,
    backbone: &'static str,
    crop: usize,
    channels: usize,
}

const SETTINGS: [Setting; 4] = [
    Setting { preset: "toy_vit", backbone: "mit_b0", crop: 128, channels: 64 },
    Setting { preset: "toy_vit", backbone: "mit_b0", crop: 128, channels: 256 },
    Setting { preset: "gta_vit", backbone: "mit_b0", crop: 256, channels: 256 },
    Setting { preset: "gta_vit", backbone: "mit_b5", crop: 128, channels: 256 },
];

fn main() {
    let device = Device::host(record::threads()).unwrap();
    let mut cases = Vec::new();
    for setting in SETTINGS {
        for phase in ["mic", "quadmix"] {
            let config = setting.config();
            let (device, case) = (device.clone(), config.clone());
            cases.push(Case {
                name: setting.name(phase),
                options: options(&config, phase),
                amount: Amount::Iterations,
                setup: Box::new(move || iterations(&device, &case, phase)),
            });
        }
    }
    record::main("step", &device, cases);
}

impl Setting {
    /// As step.py calls it.
    fn name(&self, phase: &str) -> String {
        let Setting { backbone, crop, channels, .. } = self;
        let detail = crop / 2;
        format!("{backbone} {crop}/{detail} channels {channels} batch {BATCH}+{BATCH} {phase}")
    }

    fn config(&self) -> Config {
        let Setting { preset, backbone, crop, channels } = self;
        let mut overrides = vec![
            format!("network.backbone={backbone}"),
            format!("network.channels={channels}"),
            format!("network.hrda.detail_crop={}", crop / 2),
            format!("data.crop={crop}"),
            format!("data.batch={BATCH}"),
            format!("quadmix.start={QUADMIX}"),
            "schedule.end=40000".into(),
        ];
        if *preset == "gta_vit" {
            overrides.push(format!("mask.block={}", (crop / 4).min(64)));
        }
        Config::load(preset, &overrides).unwrap()
    }
}

/// What must be told to step.py for the same work.
fn options(config: &Config, phase: &str) -> Map<String, Value> {
    let fields = json!({
        "arch": config.network.backbone,
        "crop": config.data.crop,
        "detail": config.network.hrda.detail_crop,
        "channels": config.network.channels,
        "batch": config.data.batch,
        "mask_block": config.mask.block,
        "feature_distance": config.feature_distance.enabled,
        "phase": phase,
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// A run is the next iteration of one training.
fn iterations(device: &Device, config: &Config, phase: &str) -> Run {
    let mut learner = learner(device, config);
    let quadmix = phase == "quadmix";
    let batches: Vec<DeviceBatch> =
        (0..2).map(|n| learner.upload(&batch(config, n, quadmix)).unwrap()).collect();
    let mut iteration = MIC;
    if quadmix {
        // Leaves the first templates.
        step(&mut learner, &batches[1], QUADMIX - 1);
        iteration = QUADMIX;
    }
    Box::new(move || {
        step(&mut learner, &batches[iteration as usize % 2], iteration);
        iteration += 1;
    })
}

/// Jitter and blur are always on, so that every run is the same work.
fn step(learner: &mut Learner, batch: &DeviceBatch, iteration: u64) {
    let mut inputs = StepInputs::draw(&learner.config, iteration);
    inputs.switches = [Switches { jitter: true, blur: true }; 2];
    let report = learner.step(batch, &inputs, None).unwrap();
    assert!(!report.failed, "iteration {iteration} is not finite: {:?}", report.terms);
}

fn learner(device: &Device, config: &Config) -> Learner {
    let network = Segmentor::new(&config.network).unwrap();
    let random = |learns| {
        let mut weights = Weights::new(device, network.spec(), learns).unwrap();
        initialize(device, &mut weights, config.seed).unwrap();
        weights
    };
    let (student, imagenet) =
        (random(true), config.feature_distance.enabled.then(|| random(false)));
    Learner::new(device, config, network, student, imagenet).unwrap()
}

/// Noise, and labels in blocks of classes, some of them unlabelled.
fn batch(config: &Config, number: u64, rare: bool) -> Batch {
    let side = config.data.crop;
    let mut draw = Draw::new(config.seed, number, Purpose::SourceFile, 0, 0);
    let mut crops = |n: usize, labels: &mut dyn FnMut(&mut Draw) -> Vec<u8>| Crops {
        batch: n,
        size: side,
        rgb: (0..n * side * side * 3).map(|_| draw.below(256) as u8).collect(),
        label: (0..n).flat_map(|_| labels(&mut draw)).collect(),
        ..Default::default()
    };
    let mut blocks = |draw: &mut Draw| {
        let block = (side / 8).max(8);
        let n = side.div_ceil(block);
        let ids: Vec<u8> = (0..n * n)
            .map(|_| match draw.below(CLASSES + 1) {
                CLASSES => 255,
                class => class as u8,
            })
            .collect();
        (0..side * side).map(|i| ids[i / side / block * n + i % side / block]).collect()
    };
    let source = crops(BATCH, &mut blocks);
    let target = crops(BATCH, &mut |_| Vec::new());
    let classes = [config.quadmix.classes[0], config.quadmix.classes[1]];
    let mut turn = 0;
    // A square of one class; the two classes take turns.
    let mut square = |draw: &mut Draw| {
        let (length, class) = (side / 4, classes[turn % 2]);
        turn += 1;
        let (y, x) = (draw.below(side - length), draw.below(side - length));
        let inside = |i: usize| {
            (y..y + length).contains(&(i / side)) && (x..x + length).contains(&(i % side))
        };
        (0..side * side).map(|i| if inside(i) { class } else { 255 }).collect()
    };
    let rare = rare.then(|| RareCrops { classes, crops: crops(4 * BATCH, &mut square) });
    let valid = vec![1; BATCH * side * side];
    Batch { iteration: number, source, target, valid, rare, skipped: Vec::new() }
}
