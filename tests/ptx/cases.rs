//! The cases of the block emulator: those of the launchers (double precision, distinct numbers), of
//! the gradients (single precision, every op forward and backward), and of tensor-core attention.

#[path = "../launchers/attention.rs"]
mod attention_launchers;
#[path = "../launchers/batchnorms.rs"]
mod batchnorms_launchers;
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
pub mod norms_launchers;
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

#[path = "../emulator/attention_mma.rs"]
mod attention_mma;
