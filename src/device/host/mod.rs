//! The CPU backend.

mod arithmetic;
mod backend;
mod convolution;
mod denormals;
mod foreign;
mod launch;
mod matmul;
mod processor;
mod rounded;
mod workers;

pub use arithmetic::Arithmetic;
pub(super) use backend::Host;
pub use processor::processor;
pub use workers::join_workers;
