//! Tests the `cuda` device on a stand-in for the GPU: everything except the calls into CUDA's own
//! libraries.
//!
//! The cases are those of the launchers and the gradients, in double precision; whole training
//! steps must be bit-identical to the host device's.

mod allocations;
mod choices;
mod embedding;
mod goldens;
mod inference;
mod libraries;
mod misuse;
mod nvidia;
mod replays;
mod runs;
mod sizes;
mod stand_in;
mod steps;
mod transfers;

#[path = "../support/library.rs"]
mod library;
#[path = "../support/mod.rs"]
mod support;

#[path = "../gradients/case.rs"]
mod case;
#[path = "../gradients/check.rs"]
mod check;
#[path = "../launchers/host.rs"]
mod host;

#[path = "../launchers/attention.rs"]
mod attention_launchers;
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
#[path = "../gradients/layernorm.rs"]
mod layernorm_gradients;
#[path = "../gradients/linear.rs"]
mod linear_gradients;
#[path = "../gradients/pool.rs"]
mod pool_gradients;
#[path = "../gradients/resize.rs"]
mod resize_gradients;

use udass_raw::device::{Device, Types};

pub use host::{GRID, Host, at, close, each, gelu, gelu_derivative, jittered, taps, uniform_of};

/// The device that runs the cases of launchers and gradients.
pub fn double() -> Device {
    stand_in::device(Types::F64)
}
