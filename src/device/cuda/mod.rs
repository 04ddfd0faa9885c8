//! The CUDA backend.

mod autotune;
mod backend;
pub(super) mod blocks;
mod choices;
mod copy_stream;
mod driver;
mod nvidia;
mod staging;
mod transfers;

pub(super) use backend::Cuda;
pub use driver::{Algorithm, Argument, Driver, Event, Graph, Launch, Memory, Stream};
pub use nvidia::{Cache, inventory};
pub(super) use nvidia::{Nvidia, count};
