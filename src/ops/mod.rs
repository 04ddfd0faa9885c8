//! Differentiable operations: an op's forward and its backward stand together in one file.

mod activation;
mod attention;
mod linear;

pub use activation::gelu;
pub use attention::attention;
pub use linear::linear;
