//! Differentiable operations: an op's forward and its backward stand together in one file. Ops that
//! record take the tape; what has no gradient takes the device.

mod activation;
mod attention;
mod depthwise;
mod linear;
mod pseudo_label;
mod resize;
mod upsampled;
mod windows;

pub use activation::gelu;
pub use attention::attention;
pub use depthwise::{depthwise, depthwise_gelu};
pub use linear::linear;
