//! Hand-written CUDA kernels and a minimal runtime that train and evaluate unsupervised
//! domain-adaptive semantic segmentation (UDASS / QuadMix) without libtorch.

pub mod config;
pub mod data;
pub mod device;
pub mod error;
pub mod ops;
pub mod optimizer;
pub mod params;
pub mod rng;
pub mod tape;
pub mod tensor;
pub mod uda;

pub use error::{Error, Result};
