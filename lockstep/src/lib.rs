//! Runs CUDA kernels without a GPU, thread by thread, and watches what they do.
//!
//! Kernels are built by the host C++ compiler with its thread sanitizer's hooks before every load
//! and store (`compile`). All threads of a block are coroutines on one thread of the system and run
//! in a random order between barriers (`block`); a map of who touched what (`memory`) finds what no
//! barrier orders. A launch is compared with the same source run by one thread, which adds in the
//! order of the block's threads, so that every bit must agree.

mod block;
pub mod compile;
mod hooks;
mod launch;
mod library;
mod memory;
mod report;

pub use compile::Flavour;
pub use launch::{Argument, Launch, Value, compare, perform, watch};
pub use library::Library;
pub use memory::Access;
pub use report::{Problem, Violation};

use std::path::PathBuf;

/// Why a launch cannot be run, or what is wrong with it.
#[derive(Debug)]
pub enum Error {
    Library(String),
    Stack(String),
    Violation(Box<Violation>),
    Difference(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Error::Library(problem) | Error::Difference(problem) => f.write_str(problem),
            Error::Stack(problem) => write!(f, "no stack for a thread: {problem}"),
            Error::Violation(violation) => violation.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// The folder of the kernels' sources.
pub fn kernels() -> PathBuf {
    env!("LOCKSTEP_KERNELS").into()
}

/// A library that the build made; `types` is F32, BF16 or F64.
pub fn built(types: &str, flavour: Flavour) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join(format!("{}_{types}.so", flavour.name()))
}

/// The object with the hooks' answers, which a library in lockstep is linked with.
pub fn runtime() -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join("runtime.o")
}
