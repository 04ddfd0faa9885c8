//! Differentiable operations: an op's forward and its backward stand together in one file.

mod activation;
mod linear;

pub use activation::gelu;
pub use linear::linear;
