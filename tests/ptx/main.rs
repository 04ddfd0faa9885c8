//! Executes every kernel as nvcc compiles it, without a GPU: the crate `ptx` interprets the PTX of
//! each launch of the cases, checks every access, and the results are compared with those of the
//! serial build (compare.rs). docs/ptx.md describes how.
//!
//! The cases run in a process of their own, once for all kernels; a test of a kernel reads what
//! that process recorded about it. In this process, the same cases run on the plain host, which
//! takes no time.

mod built;
mod cases;
mod compare;
mod counts;
mod faults;
mod kernels;
mod memory;
#[path = "../../build/nvcc.rs"]
mod nvcc;
mod programs;
mod prover;
mod records;

#[path = "../gradients/case.rs"]
mod case;
#[path = "../emulator/check.rs"]
mod check;
#[path = "../launchers/host.rs"]
mod host;
#[path = "../emulator/tensor_cores.rs"]
mod tensor_cores;

pub use cases::norms_launchers as norms;
pub use host::{GRID, Host, at, close, each, gelu, gelu_derivative, jittered, taps, uniform_of};
use udass_raw::device::{Device, Types};

/// The device that runs the launchers' cases.
pub fn double() -> Device {
    prover::device(Types::F64)
}
