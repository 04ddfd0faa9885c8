//! Trained networks over whole images: evaluation, prediction, and what is written of either.

pub mod evaluate;
pub mod images;
pub mod inference;
pub mod metrics;
pub mod predict;
pub mod report;
pub mod submission;
pub mod trained;
