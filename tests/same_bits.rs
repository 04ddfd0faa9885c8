//! Tests that the same seed gives the same bits twice, and whether iterations are captured as CUDA
//! graphs or not. On the host it trains toy_vit; `UDASS_DEVICE=cuda` and `UDASS_PRECISION` select a
//! GPU, and `UDASS_SAME_BITS=gta_vit` another preset. The line `bits …` that it prints must be the
//! same in every process on the same machine.

mod support;

use sha2::{Digest, Sha256};
use udass_raw::config::Config;
use udass_raw::run::profile::Synthetic;

use support::test_device;

/// The first iteration warms up, the second is captured, and the others are replayed.
const ITERATIONS: usize = 4;

/// Trains for some iterations, on a device of its own, and returns a hash of all state.
fn bits(cuda_graph: bool) -> String {
    let preset = std::env::var("UDASS_SAME_BITS").unwrap_or("toy_vit".into());
    let settings = [format!("device.cuda_graph={cuda_graph}"), "weights.init=random".into()];
    let config = Config::load(&preset, &settings).unwrap();
    let (device, precision) = test_device().unwrap();
    println!("{preset} in {precision:?} on {}, graph: {cuda_graph}", device.describe());
    let mut training = Synthetic::new(&device, &config).unwrap();
    for _ in 0..ITERATIONS {
        training.step().unwrap();
    }
    let state = training.state();
    let teacher = state.teacher.as_ref().map(|teacher| &teacher.values);
    let moments = [&state.optimizer.exp_avg, &state.optimizer.exp_avg_sq];
    let mut hash = Sha256::new();
    for tensor in [&state.student.values].into_iter().chain(teacher).chain(moments) {
        let numbers = device.read_f32(tensor).unwrap();
        assert!(numbers.iter().all(|x| x.is_finite()));
        hash.update(bytemuck::cast_slice::<f32, u8>(&numbers));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_same_seed_gives_the_same_bits_with_graphs_and_without() {
    let (first, second, without) = (bits(true), bits(true), bits(false));
    println!("bits {first}");
    assert_eq!(first, second, "the second run differs");
    assert_eq!(first, without, "runs with and without CUDA graphs differ");
}
