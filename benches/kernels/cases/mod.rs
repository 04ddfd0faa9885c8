//! Cases for every operation of a training iteration, at the sizes that it has in a preset. main.rs
//! measures them, and tests/operations.rs checks that they cover the iterations themselves.

mod bed;
mod contrast;
mod layers;
mod losses;
mod mixing;
mod networks;
mod recorded;
mod state;

use serde_json::{Map, Value, json};
use udass_raw::config::Config;
use udass_raw::device::profile::Profile;

pub use bed::{Bed, Run};

/// Name, configuration and overrides. The last three presets are small, for quick runs.
pub const PRESETS: [(&str, &str, &[&str]); 6] = [
    ("gta_vit", "gta_vit", &[]),
    ("gta_cnn", "gta_cnn", &[]),
    ("sepico_vit", "sepico_vit", &[]),
    ("b0_128", "gta_vit", &["network.backbone=mit_b0", CROP, DETAIL, BLOCK]),
    ("r50_128", "gta_cnn", &["network.backbone=resnet50_v1c", CROP, DETAIL, BLOCK]),
    (
        "sepico_128",
        "sepico_vit",
        &["network.backbone=mit_b0", CROP, DETAIL, BLOCK, TARGET, MARGINS],
    ),
];
const CROP: &str = "data.crop=128";
const DETAIL: &str = "network.hrda.detail_crop=64";
const BLOCK: &str = "mask.block=32";
const TARGET: &str = "target.resize=[256,128]";
const MARGINS: &str = "pseudo_label.margins=[2,15,0,0]";

/// An operation at one size.
pub struct Case {
    pub preset: &'static str,
    pub op: &'static str,
    /// The sizes of the operation; benches/pytorch/ops.py takes the same keys.
    pub shape: Map<String, Value>,
    /// Whether the case includes the backward pass.
    pub backward: bool,
    make: Box<dyn Fn(&Bed) -> Run>,
}

/// The cases of one preset.
pub struct List {
    preset: &'static str,
    cases: Vec<Case>,
}

/// Loads the configuration of a preset.
pub fn config(preset: &str) -> Config {
    let (_, base, changes) = PRESETS.into_iter().find(|(name, ..)| *name == preset).unwrap();
    let changes: Vec<String> = changes.iter().map(|change| change.to_string()).collect();
    Config::load(base, &changes).unwrap()
}

/// Returns all cases of a preset.
pub fn of(preset: &'static str) -> Vec<Case> {
    let config = config(preset);
    let mut list = List { preset, cases: Vec::new() };
    networks::add(&mut list, &config);
    losses::add(&mut list, &config);
    contrast::add(&mut list, &config);
    mixing::add(&mut list, &config);
    state::add(&mut list, &config);
    list.cases
}

/// Measures the machine's peak rates with a large square matmul and a copy, as a reference for the
/// other cases.
pub fn rates(on_gpu: bool) -> Vec<Case> {
    let mut list = List { preset: "rate", cases: Vec::new() };
    state::rates(&mut list, on_gpu);
    list.cases
}

impl Case {
    pub fn pass(&self) -> &'static str {
        if self.backward { "forward_backward" } else { "forward" }
    }

    /// Formats the name as `preset/op key=value,… pass`.
    pub fn name(&self) -> String {
        let sizes: Vec<String> = self.shape.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{}/{} {} {}", self.preset, self.op, sizes.join(","), self.pass())
    }

    /// The fields that are recorded next to the times.
    pub fn options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        options.insert("preset".into(), json!(self.preset));
        options.insert("op".into(), json!(self.op));
        options.insert("shape".into(), json!(self.shape));
        options.insert("pass".into(), json!(self.pass()));
        options
    }

    pub fn prepare(&self, bed: &Bed) -> Run {
        (self.make)(bed)
    }

    /// Runs the case once on a dry device and returns the profile of its calls with their bytes and
    /// FLOPs.
    pub fn asks(&self, dry: &Bed) -> (Run, Profile) {
        let mut run = self.prepare(dry);
        let ((), profile) = dry.device.profile(|| (run.once)()).unwrap();
        (run, profile)
    }
}

impl List {
    /// Adds a case unless it exists: networks have many layers of one shape, and each shape is
    /// measured once.
    fn push(
        &mut self,
        op: &'static str,
        shape: Value,
        backward: bool,
        make: Box<dyn Fn(&Bed) -> Run>,
    ) {
        let Value::Object(shape) = shape else { panic!("{op}: {shape} is not an object") };
        let same = |c: &Case| c.op == op && c.shape == shape && c.backward == backward;
        if !self.cases.iter().any(same) {
            self.cases.push(Case { preset: self.preset, op, shape, backward, make });
        }
    }

    /// Adds an operation that has no gradient.
    fn plain(&mut self, op: &'static str, shape: Value, make: impl Fn(&Bed) -> Run + 'static) {
        self.push(op, shape, false, Box::new(make));
    }
}
