//! NVIDIA GPUs and the libraries that drive them.

#[macro_use]
mod call;

mod cache;
mod code;
mod convolution;
mod driver;
mod embedded;
mod faults;
mod gpu;
mod graph;
mod inventory;
mod libraries;
mod matmul;
mod nvrtc;

pub use cache::Cache;

pub use driver::Nvidia;
pub use gpu::count;
pub use inventory::inventory;
