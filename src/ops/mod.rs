//! Differentiable operations: an op's forward and its backward stand together in one file.

mod activation;
mod batchnorm;
mod channels;
mod conv;
mod linear;
mod resize;

pub use activation::gelu;
pub use batchnorm::{BatchNorm, Mode, batchnorm};
pub use channels::{concat, dropout2d};
pub use conv::{Conv, conv};
pub use linear::linear;
pub use resize::{resize, resize_concat};
