//! Measures whole training iterations on synthetic batches that are already in host memory: the
//! workload of benches/pytorch/step.py, to which benches/compare.py passes the cases' options. A
//! case is named `<setting>/<method>`. UDASS_SET holds further configuration overrides, separated
//! by spaces. See benches/record.rs for how to run it.

// Each bench uses only a part of this module.
#[allow(dead_code)]
mod record;

use serde_json::{Map, Value, json};
use udass_raw::config::{Config, METHODS};
use udass_raw::device::Device;
use udass_raw::run::profile::Synthetic;
use udass_raw::run::train::initial_state::effective;

use record::{Case, Run, Work};

/// A preset with overrides, and the methods that are timed with it.
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
    // At full size an iteration takes minutes without a GPU.
    let full = record::on_gpu().then_some(FULL);
    for setting in full.into_iter().chain(SETTINGS) {
        for method in setting.methods {
            let config = setting.config(method);
            let (device, case, counted) = (device.clone(), config.clone(), config.clone());
            cases.push(Case {
                name: format!("{}/{method}", setting.name),
                options: options(&config, method),
                work: Box::new(move || work(&counted)),
                warmup: 0,
                setup: Box::new(move || iterations(&device, &case)),
            });
        }
    }
    record::main("step", &device, cases);
}

impl Setting {
    fn config(&self, method: &str) -> Config {
        let more = std::env::var("UDASS_SET").unwrap_or_default();
        let changes = self.changes.iter().copied().chain(more.split_whitespace());
        let changes: Vec<String> = changes.map(str::to_string).collect();
        effective(&Config::load_with(self.preset, Some(method), &changes).unwrap())
    }
}

/// The options that make step.py do the same work, by the names of its flags.
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

/// Counts the work of an iteration that does all that its method does: QuadMix begins late.
fn work(config: &Config) -> Work {
    let dry = Device::dry(record::precision());
    let mut training = Synthetic::new(&dry, config).unwrap();
    training.load().unwrap();
    Work::of(&dry.profile(|| training.step_on_loaded().unwrap()).unwrap().1)
}

/// Each run is the next iteration of one training, on a batch that is already on the device: in
/// real training, the next batch is uploaded while the current iteration runs.
fn iterations(device: &Device, config: &Config) -> Run {
    let mut training = Synthetic::new(device, config).unwrap();
    training.load().unwrap();
    Box::new(move || training.step_on_loaded().unwrap())
}
