//! Saves and loads state: files of named tensors, network weights, and checkpoints of runs.

pub mod batch;
mod checksum;
mod content;
pub mod convert;
pub mod deployed;
pub mod files;
mod foreign;
pub mod identity;
pub mod moments;
pub mod names;
pub mod pth;
pub mod state;
pub mod tensor_file;
pub mod verify;
pub mod weights;
pub mod writer;
