//! Inference as captured graphs.

use udass_raw::checkpoint::files;
use udass_raw::checkpoint::state::{self, Position};
use udass_raw::checkpoint::weights::Network;
use udass_raw::config::EvalConfig;
use udass_raw::device::{Device, Types};
use udass_raw::run::eval::trained::Trained;
use udass_raw::run::train::initial_state;

use crate::stand_in::StandIn;
use crate::steps::config_with;

/// The first forward pass of a shape shows the size of its result, the second warms up, the third
/// is captured, and from then on it is replayed: with the same logits as on the host.
#[test]
fn forward_passes_that_recur_are_replayed() {
    let config = config_with("toy_vit", &["device.kind=host", "eval.batch=1"]);
    let host = Device::host(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let mut training = initial_state::build(&config, &host, None).unwrap();
    state::save(&path, &mut training, &Position::default(), None).unwrap();
    drop(training);
    let file = files::open(&path).unwrap();
    let load = |device| Trained::load_on(device, &config, &file, Network::Student, &()).unwrap();
    let gpu = StandIn::new();
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    let (expected, trained) = (load(host), load(device.clone()));
    let bytes = |seed: usize, sides: [usize; 2]| -> Vec<u8> {
        (0..3 * sides[0] * sides[1]).map(|i| (i * i / 7 + seed * i) as u8).collect()
    };
    let agree = |eval: &EvalConfig, seed: usize, sides: [usize; 2]| {
        let rgb = bytes(seed, sides);
        let of = |trained: &Trained| {
            let logits = trained.predictor(eval).logits(&rgb, sides[0], sides[1]).unwrap();
            trained.device().read_f32(&logits).unwrap()
        };
        assert!(of(&trained) == of(&expected), "seed {seed}, {sides:?}");
    };
    let whole = EvalConfig { window: 0, ..config.eval.clone() };
    for seed in 0..6 {
        agree(&whole, seed, [64, 64]);
    }
    assert_eq!(gpu.counts().replayed, 4);
    // Images of ever new sizes do not collect graphs without end.
    let mut held = Vec::new();
    for _ in 0..3 {
        (0..12).for_each(|step| agree(&whole, step, [64, 64 + 32 * (step % 12)]));
        held.push(device.memory().used);
    }
    assert!(held[2] <= held[0] + held[0] / 4, "{held:?}");
    drop(trained);
    drop(device);
}
