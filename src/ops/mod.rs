//! Differentiable operations: an op's forward and its backward stand together in one file. Ops that
//! record take the tape; what has no gradient takes the device.

mod activation;
mod attention;
mod attention_mma;
mod batch;
mod batchnorm;
mod channels;
mod conv;
mod cross_entropy;
mod depthwise;
mod feature_distance;
mod finite;
mod hrda;
mod labels;
mod layernorm;
mod linear;
mod pool;
mod pseudo_label;
mod resize;
mod upsampled;
mod windows;

pub use activation::{add, widen};
pub use attention::attention;
pub use attention_mma::attention_mma;
pub use batch::{split, stack};
pub use batchnorm::{BatchNorm, Mode, batchnorm};
pub use channels::{concat, dropout2d};
pub use conv::{Conv, conv, conv_wide};
pub use cross_entropy::{Loss, cross_entropy};
pub use depthwise::{depthwise, depthwise_gelu};
pub use feature_distance::{Distance, feature_distance};
pub use finite::flag_not_finite;
pub use hrda::{DetailBox, Fused, hrda_fuse};
pub use labels::{Confusion, ConfusionCounts, downscale_labels};
pub use layernorm::{DropPath, Norm, add_layernorm, layernorm, layernorm_stream};
pub use linear::{column_sums, linear, linear_wide};
pub use pool::max_pool;
pub use pseudo_label::{Confidence, PseudoLabels, predict, pseudo_labels};
pub use resize::{resize, resize_concat};
pub use windows::{Windows, crop};
