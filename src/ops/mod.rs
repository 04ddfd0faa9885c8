//! Differentiable operations: an op's forward and its backward stand together in one file.

mod activation;
mod attention;
mod depthwise;
mod linear;

pub use activation::gelu;
pub use attention::attention;
pub use depthwise::{depthwise, depthwise_gelu};
pub use linear::linear;
