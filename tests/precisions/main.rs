//! Compares every op, forward and backward, at every precision with the same op in double
//! precision. The cases are those of the gradients, which finite differences check.
//!
//! `UDASS_DEVICE=cuda` runs them on the GPU instead of the host, `UDASS_PRECISION` at a single
//! precision.

mod check;

#[path = "../gradients/case.rs"]
mod case;

#[path = "../gradients/activation.rs"]
mod activation;
#[path = "../gradients/attention.rs"]
mod attention;
#[path = "../gradients/batchnorm.rs"]
mod batchnorm;
#[path = "../gradients/contrast.rs"]
mod contrast;
#[path = "../gradients/conv.rs"]
mod conv;
#[path = "../gradients/cross_entropy.rs"]
mod cross_entropy;
#[path = "../gradients/depthwise.rs"]
mod depthwise;
#[path = "../gradients/feature_distance.rs"]
mod feature_distance;
#[path = "../gradients/hrda.rs"]
mod hrda;
#[path = "../gradients/l2_normalize.rs"]
mod l2_normalize;
#[path = "../gradients/layernorm.rs"]
mod layernorm;
#[path = "../gradients/linear.rs"]
mod linear;
#[path = "../gradients/pool.rs"]
mod pool;
#[path = "../gradients/resize.rs"]
mod resize;
