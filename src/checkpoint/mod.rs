//! State saved and loaded: files of named tensors, weights, and a run's checkpoints.

pub mod atomic;
pub mod batch;
pub mod convert;
pub mod files;
pub mod identity;
pub mod moments;
pub mod pth;
pub mod state;
pub mod tensor_file;
pub mod verify;
pub mod weights;
pub mod writer;
