//! Executes launches: blocks one after the other, the warps of a block in turn from barrier to
//! barrier, and the lanes of a warp together as long as they are at the same instruction.

mod access;
mod block;
mod context;
mod exchange;
mod launch;
mod registers;
mod tensor_core;
mod warp;

pub use context::Options;
pub use launch::{Launch, run};
