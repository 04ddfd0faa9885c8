//! The method: one iteration of unsupervised domain adaptation.

mod averaged;
pub mod batch;
pub mod contrast;
mod forward_backward;
pub mod inputs;
mod iteration;
pub mod memory;
pub mod mix;
mod optimizer;
mod passes;
pub mod report;
pub mod state;
pub mod submit;
pub mod templates;
pub mod trace;
mod update;
