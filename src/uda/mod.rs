//! The method: one iteration of unsupervised domain adaptation.

pub mod batch;
pub mod inputs;
pub mod mix;
pub mod step;
