//! Differentiable operations: an op's forward and its backward stand together in one file. Ops that
//! record take the tape; what has no gradient takes the device.

mod activation;
mod attention;
mod cross_entropy;
mod feature_distance;
mod finite;
mod hrda;
mod labels;
mod layernorm;
mod linear;
mod pseudo_label;
mod upsampled;
mod windows;

pub use activation::gelu;
pub use attention::attention;
pub use cross_entropy::{Loss, cross_entropy};
pub use feature_distance::{Distance, feature_distance};
pub use finite::flag_not_finite;
pub use hrda::{DetailBox, Fused, hrda_fuse};
pub use labels::{Confusion, ConfusionCounts, downscale_labels};
pub use layernorm::{DropPath, Norm, add_layernorm, layernorm, layernorm_stream};
pub use linear::{column_sums, linear};
pub use pseudo_label::{Confidence, PseudoLabels, predict, pseudo_labels};
pub use windows::{Windows, crop};
