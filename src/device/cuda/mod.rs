//! The CUDA backend.

mod backend;
mod beside;
pub(super) mod blocks;
mod choices;
mod driver;
mod nvidia;
mod staging;
mod transfers;

pub(super) use backend::Cuda;
pub use driver::{Argument, Driver, Event, Graph, Launch, Memory, Stream, Way};
pub(super) use nvidia::{Nvidia, is_present};
