//! State saved and loaded: files of named tensors, weights, and a run's checkpoints.

pub mod atomic;
pub mod convert;
pub mod identity;
pub mod pth;
pub mod state;
pub mod tensor_file;
pub mod weights;
