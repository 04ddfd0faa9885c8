//! Seconds of whole training iterations, on synthetic batches already in device memory: the work of
//! benches/pytorch/step.py, which benches/compare.py tells the cases' options. A case is named
//! `<setting>/<method>`. UDASS_SET holds further changes of the configuration, with spaces between.
//! How to run: benches/record.rs.

// Each bench uses its own part of it.
#[allow(dead_code)]
mod record;

use serde_json::{Map, Value, json};
use udass_raw::config::{Config, METHODS, Method};
use udass_raw::data::{Batch, Crops, RareCrops};
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::Weights;
use udass_raw::rng::{Draw, Purpose};
use udass_raw::run::build::effective;
use udass_raw::uda::inputs::{StepInputs, Switches};
use udass_raw::uda::step::{DeviceBatch, Learner, initialize};

use record::{Amount, Case, Run};

/// First iteration that QuadMix mixes four ways, and the first of every case.
const START: u64 = 6000;

/// A preset with changes, and the methods that are timed in it.
struct Setting {
    name: &'static str,
    preset: &'static str,
    changes: &'static [&'static str],
    methods: &'static [&'static str],
}

const SETTINGS: [Setting; 5] = [
    Setting { name: "toy_vit", preset: "toy_vit", changes: &[], methods: &METHODS },
    Setting { name: "toy_cnn", preset: "toy_cnn", changes: &[], methods: &METHODS },
    Setting {
        name: "toy_vit_256",
        preset: "toy_vit",
        changes: &["network.channels=256"],
        methods: &["mic", "quadmix"],
    },
    Setting {
        name: "gta_b0_256",
        preset: "gta_vit",
        changes: &["network.backbone=mit_b0", "data.crop=256", "network.hrda.detail_crop=128"],
        methods: &["mic", "quadmix"],
    },
    Setting {
        name: "gta_b5_128",
        preset: "gta_vit",
        changes: &["data.crop=128", "network.hrda.detail_crop=64", "mask.block=32"],
        methods: &["mic", "quadmix"],
    },
];

const FULL: Setting =
    Setting { name: "gta_vit", preset: "gta_vit", changes: &[], methods: &["mic", "quadmix"] };

fn main() {
    let device = record::device();
    let mut cases = Vec::new();
    // At its real size an iteration takes minutes without a GPU.
    let full = record::on_gpu().then_some(FULL);
    for setting in full.into_iter().chain(SETTINGS) {
        for method in setting.methods {
            let config = setting.config(method);
            let (device, case) = (device.clone(), config.clone());
            cases.push(Case {
                name: format!("{}/{method}", setting.name),
                options: options(&config, method),
                amount: Amount::Iterations,
                setup: Box::new(move || iterations(&device, &case)),
            });
        }
    }
    record::main("step", &device, cases);
}

impl Setting {
    fn config(&self, method: &str) -> Config {
        let start = format!("quadmix.start={START}");
        let always = [start.as_str(), "schedule.end=40000"];
        let more = std::env::var("UDASS_SET").unwrap_or_default();
        let more = more.split_whitespace();
        let changes: Vec<String> =
            self.changes.iter().copied().chain(always).chain(more).map(str::to_string).collect();
        effective(&Config::load_with(self.preset, Some(method), &changes).unwrap())
    }
}

/// What step.py must be told for the same work, by the names of its flags.
fn options(config: &Config, method: &str) -> Map<String, Value> {
    let Config { network, data, .. } = config;
    let fields = json!({
        "arch": network.backbone,
        "channels": network.channels,
        "crop": data.crop,
        "detail": if network.hrda.enabled { network.hrda.detail_crop } else { 0 },
        "batch": data.batch,
        "method": method,
        "mask-block": config.mask.block,
        "feature-distance": config.feature_distance.enabled,
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// A run is the next iteration of one training.
fn iterations(device: &Device, config: &Config) -> Run {
    let mut learner = learner(device, config);
    let batches: Vec<DeviceBatch> =
        (0..2).map(|n| learner.upload(&batch(config, n)).unwrap()).collect();
    if config.method == Method::Quadmix {
        // Leaves the first templates.
        step(&mut learner, &batches[1], START - 1);
    }
    let mut iteration = START;
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
fn batch(config: &Config, number: u64) -> Batch {
    let (side, batch, classes) = (config.data.crop, config.data.batch, config.network.classes);
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
            .map(|_| match draw.below(classes + 1) {
                n if n == classes => 255,
                class => class as u8,
            })
            .collect();
        (0..side * side).map(|i| ids[i / side / block * n + i % side / block]).collect()
    };
    let source = crops(batch, &mut blocks);
    let target = crops(batch, &mut |_| Vec::new());
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
    let rare = (config.method == Method::Quadmix)
        .then(|| RareCrops { classes, crops: crops(4 * batch, &mut square) });
    let valid = vec![1; batch * side * side];
    Batch { iteration: number, source, target, valid, rare, skipped: Vec::new() }
}
