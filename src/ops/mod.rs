//! Differentiable operations. The forward and backward pass of an op are together in one file.
//! Differentiable ops take a tape; ops without a gradient take the device.
//!
//! Tensors have one of two floating-point types. The *compute type*,
//! [`Device::real`](crate::device::Device::real), is single (or double) precision: residual
//! streams, statistics, logits and losses. The *storage type*,
//! [`Device::operand`](crate::device::Device::operand), is the type of matmul and attention
//! operands: bf16 under mixed precision, the compute type otherwise.

mod activation;
mod adamw;
mod attention;
mod attention_mma;
mod attention_sizes;
pub mod augment;
mod batch;
mod batchnorm;
mod boxes;
mod channels;
mod class_statistics;
mod contrast;
mod conv;
mod cross_entropy;
mod depthwise;
mod elementwise;
mod feature_distance;
mod finite;
mod hrda;
mod images;
mod l2_normalize;
mod labels;
mod layernorm;
mod linear;
mod matmul;
pub mod mix;
mod pool;
mod pseudo_label;
mod resize;
mod resized_linear;
mod upsampled;
mod windows;

pub use activation::{add, upcast};
pub use adamw::{AdamW, commit};
pub use attention::attention;
pub use attention_mma::attention_mma;
pub use batch::{split, stack};
pub use batchnorm::{BatchNorm, Mode, batchnorm};
pub use boxes::most_balanced;
pub use channels::{concat, dropout2d};
pub use class_statistics::{Bank, ClassMoments, ClassStatistics, ClassSums, class_sums};
pub use contrast::{Contrast, ContrastSettings, Contrasted, contrast};
pub use conv::{Conv, conv, conv_wide};
pub use cross_entropy::{Loss, cross_entropy};
pub use depthwise::{depthwise, depthwise_gelu};
pub use elementwise::{accumulate, add_scaled, fill, full, round, scaled, to_operand};
pub use feature_distance::{Distance, feature_distance};
pub use finite::flag_not_finite;
pub use hrda::{DetailBox, Fused, hrda_fuse};
pub use images::{ImageNormalizer, MEAN, STD, normalized};
pub use l2_normalize::l2_normalize;
pub use labels::{Confusion, ConfusionCounts, downscale_labels, ignore_unweighted};
pub use layernorm::{DropPath, Norm, add_layernorm, layernorm, layernorm_stream};
pub use linear::{column_sums, linear, linear_wide};
pub use matmul::{matmul, matmul_with_bias};
pub use pool::max_pool;
pub use pseudo_label::{Confidence, PseudoLabels, predict, pseudo_labels};
pub use resize::{resize, resize_concat};
pub use resized_linear::{folded_linear_of_resized, linear_of_resized};
pub use windows::{Windows, crop};
