//! Trained networks applied to whole images: evaluation, prediction, and their output files.

mod captured;
pub mod evaluate;
pub mod images;
pub mod inference;
pub mod memory;
pub mod metrics;
pub mod page;
pub mod per_image;
pub mod predict;
pub mod report;
mod shared;
pub mod submission;
pub mod trained;
