//! Differentiable operations: an op's forward and its backward stand together in one file.

mod activation;
mod layernorm;
mod linear;

pub use activation::gelu;
pub use layernorm::{DropPath, Norm, add_layernorm, layernorm, layernorm_stream};
pub use linear::{column_sums, linear};
