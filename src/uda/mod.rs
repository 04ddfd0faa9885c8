//! The method: one iteration of unsupervised domain adaptation.

pub mod inputs;
