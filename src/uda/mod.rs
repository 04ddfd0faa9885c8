//! The method: one iteration of unsupervised domain adaptation.

pub mod batch;
pub mod inputs;
pub mod mix;
mod optimizer;
pub mod step;
