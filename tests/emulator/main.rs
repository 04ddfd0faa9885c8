//! Runs every kernel in the block emulator: the threads of its blocks run one at a time, in a
//! random order between barriers, and every memory access is checked. The results must be
//! bit-identical to a single thread that sums in the same order.
//!
//! The cases are those of the launchers (double precision, distinct numbers) and of the gradients
//! (single precision, every op forward and backward); they check the results as well.

mod attention_mma;
mod built;
mod check;
mod detect;
mod prover;
mod tensor_cores;

#[path = "../gradients/case.rs"]
mod case;
#[path = "../launchers/host.rs"]
mod host;

#[path = "../launchers/attention.rs"]
mod attention_launchers;
#[path = "../launchers/contrast.rs"]
mod contrast_launchers;
#[path = "../launchers/counts.rs"]
mod counts_launchers;
#[path = "../launchers/depthwise.rs"]
mod depthwise_launchers;
#[path = "../launchers/elementwise.rs"]
mod elementwise_launchers;
#[path = "../launchers/images.rs"]
mod images_launchers;
#[path = "../launchers/logits.rs"]
mod logits_launchers;
#[path = "../launchers/maps.rs"]
mod maps_launchers;
#[path = "../launchers/mix.rs"]
mod mix_launchers;
#[path = "../launchers/norms.rs"]
mod norms_launchers;
#[path = "../launchers/windows.rs"]
mod windows_launchers;

#[path = "../gradients/activation.rs"]
mod activation_gradients;
#[path = "../gradients/attention.rs"]
mod attention_gradients;
#[path = "../gradients/batchnorm.rs"]
mod batchnorm_gradients;
#[path = "../gradients/contrast.rs"]
mod contrast_gradients;
#[path = "../gradients/conv.rs"]
mod conv_gradients;
#[path = "../gradients/cross_entropy.rs"]
mod cross_entropy_gradients;
#[path = "../gradients/depthwise.rs"]
mod depthwise_gradients;
#[path = "../gradients/feature_distance.rs"]
mod feature_distance_gradients;
#[path = "../gradients/hrda.rs"]
mod hrda_gradients;
#[path = "../gradients/l2_normalize.rs"]
mod l2_normalize_gradients;
#[path = "../gradients/layernorm.rs"]
mod layernorm_gradients;
#[path = "../gradients/linear.rs"]
mod linear_gradients;
#[path = "../gradients/pool.rs"]
mod pool_gradients;
#[path = "../gradients/resize.rs"]
mod resize_gradients;

pub use host::{GRID, Host, at, close, each, gelu, gelu_derivative, jittered, taps, uniform_of};
use udass_raw::device::{Device, Types};

/// The device that runs the launchers' cases.
pub fn double() -> Device {
    prover::device(Types::F64)
}

/// Runs the cases once more, quickly, and collects the names of the launched kernels.
#[test]
fn every_kernel_was_run() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--skip", "every_kernel_was_run", "--skip", "detect", "--skip", "tensor_cores"])
        .env(prover::LIST, list.path())
        .env(prover::THREADS, "33")
        .env(prover::SEED, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = std::fs::read_to_string(list.path()).unwrap();
    let run: std::collections::BTreeSet<&str> = text.lines().collect();
    let all = udass_raw::device::kernels::ALL.iter().map(|kernel| kernel.name);
    let missed: Vec<&str> = all.filter(|name| !run.contains(name)).collect();
    assert!(missed.is_empty(), "never launched: {}", missed.join(", "));
}
