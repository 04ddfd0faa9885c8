//! Runs: what is written, shown and measured while a network trains or is evaluated.

pub mod atomic;
pub mod build;
pub mod checkpoint;
pub mod comparison;
pub mod convert;
pub mod evaluate;
pub mod identity;
pub mod inference;
pub mod lock;
pub mod log;
pub mod metrics;
pub mod pictures;
pub mod profile;
pub mod progress;
pub mod pth;
pub mod published;
pub mod replay;
pub mod report;
pub mod signal;
pub mod submission;
pub mod tensor_file;
pub mod trainer;
pub mod weights;
