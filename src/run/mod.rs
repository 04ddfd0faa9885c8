//! Runs: training, evaluation, profiles, and reports beside published results.

pub mod build;
pub mod comparison;
pub mod eval;
pub mod profile;
pub mod train;
