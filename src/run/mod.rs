//! Runs: training, evaluation, profiling, export, and reports that compare runs with published results.

pub mod build;
pub mod comparison;
pub mod eval;
pub mod export;
mod page;
pub mod profile;
pub mod train;
