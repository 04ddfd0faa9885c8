//! The block emulator: runs CUDA kernels thread by thread without a GPU and checks every memory
//! access.
//!
//! Kernels are built by the host C++ compiler with its thread sanitizer's hooks before every load
//! and store (`compile`). All threads of a block are coroutines on one OS thread and run in a
//! random order between barriers (`block`). A shadow map of the latest accesses (`memory`) detects
//! those that no barrier orders. Each launch is compared with the same source run by one thread
//! that adds in the order of the block's threads, so the results must agree bit for bit.

mod block;
mod built;
pub mod compile;
mod error;
mod hooks;
mod launch;
mod library;
mod memory;
mod report;

pub use built::{built, kernels, runtime};
pub use compile::Build;
pub use error::Error;
pub use launch::{Argument, Launch, Value, compare, perform, watch};
pub use library::Library;
pub use report::{Access, Problem, Violation};
