//! Runs: what is written, shown and measured while a network trains or is evaluated.

pub mod atomic;
pub mod build;
pub mod checkpoint;
pub mod comparison;
pub mod evaluate;
pub mod inference;
pub mod log;
pub mod metrics;
pub mod pictures;
pub mod progress;
pub mod published;
pub mod report;
pub mod signal;
pub mod submission;
pub mod tensor_file;
pub mod trainer;
pub mod weights;
