//! The method: one iteration of unsupervised domain adaptation.

pub mod augment;
pub mod batch;
pub mod inputs;
pub mod mix;
mod optimizer;
pub mod step;
