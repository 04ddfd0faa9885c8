//! Measures inference time of whole networks: SegFormer on one 512×512 image, the workload that
//! benches/pytorch/forward.py runs with PyTorch and with ONNX Runtime. See benches/record.rs for
//! how to run it.

// Each bench uses only a part of this module.
#[allow(dead_code)]
mod record;

use serde_json::{Map, Value, json};
use udass_raw::config::Config;
use udass_raw::device::{Device, Precision, join_workers};
use udass_raw::nn::{BatchNormMode, Pass, Segmentor};
use udass_raw::params::Weights;
use udass_raw::rng::{Draw, Purpose};
use udass_raw::tape::Tape;

use record::{Case, Run, Work};

const SIDE: usize = 512;
/// Backbone and decoder channels (Xie et al. 2021, table 6).
const NETWORKS: [(&str, usize); 2] = [("mit_b0", 256), ("mit_b5", 768)];

fn main() {
    join_workers(record::threads()).unwrap();
    let device = Device::host(record::threads()).unwrap();
    let mut cases = Vec::new();
    for (arch, channels) in NETWORKS {
        let options = json!({"arch": arch, "channels": channels, "side": SIDE});
        let (options, device) = (options.as_object().cloned().unwrap_or_default(), device.clone());
        cases.push(Case {
            name: format!("segformer_{}", arch.trim_start_matches("mit_")),
            options: options as Map<String, Value>,
            work: Box::new(move || {
                let dry = Device::dry(Precision::F32);
                Work::of(&dry.profile(forward(&dry, arch, channels)).unwrap().1)
            }),
            warmup: 0,
            setup: Box::new(move || forward(&device, arch, channels)),
        });
    }
    record::main("forward", &device, cases);
}

fn forward(device: &Device, arch: &str, channels: usize) -> Run {
    let changes = [
        format!("network.backbone={arch}"),
        format!("network.channels={channels}"),
        "network.head=segformer".into(),
        "network.hrda.enabled=false".into(),
    ];
    let config = Config::load_with("gta_vit", None, &changes).unwrap();
    let network = Segmentor::new(&config.network).unwrap();
    let mut weights = Weights::new(device, network.spec(), false).unwrap();
    weights.initialize(device, 1).unwrap();
    let mut draw = Draw::new(1, 0, Purpose::SourceFile, 0, 0);
    let pixels: Vec<f32> = (0..3 * SIDE * SIDE).map(|_| draw.range_f32(-2.0, 2.0)).collect();
    let image = device.upload_real(&[1, SIDE, SIDE, 3], &pixels).unwrap();
    let device = device.clone();
    Box::new(move || {
        let tape = Tape::inference(&device);
        let batch_norm = BatchNormMode::Eval;
        let pass = Pass { tape: &tape, weights: &weights, batch_norm, dropout_rng: None };
        network.logits(&pass, &image).unwrap();
        device.synchronize().unwrap();
    })
}
