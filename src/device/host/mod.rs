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
mod tasks;
mod workers;

pub use arithmetic::Arithmetic;
pub(super) use backend::Host;
pub use processor::processor;
pub(crate) use tasks::map;
pub use workers::join_workers;
