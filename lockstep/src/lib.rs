//! Runs CUDA kernels without a GPU, thread by thread, and watches what they do.
//!
//! Kernels are built by the host C++ compiler with its thread sanitizer's hooks before every load
//! and store (`compile`). All threads of a block are coroutines on one thread of the system and run
//! in a random order between barriers (`block`); a map of who touched what (`memory`) finds what no
//! barrier orders. A launch is compared with the same source run by one thread, which adds in the
//! order of the block's threads, so that every bit must agree.

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
pub use compile::Flavour;
pub use error::Error;
pub use launch::{Argument, Launch, Value, compare, perform, watch};
pub use library::Library;
pub use report::{Access, Problem, Violation};
