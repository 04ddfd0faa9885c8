//! Datasets on disk, and the batches that training consumes.

mod batch;
pub mod classes;
pub mod crops;
pub mod decode;
pub mod eval;
pub mod inventory;
pub mod labels;
pub mod layouts;
pub mod loader;
mod photometric;
pub mod prefetch;
pub mod prepare;
pub mod resize;
pub mod sampling;
pub mod toy;

pub use batch::{BadFile, Batch, Crops, PAD_RGB, RareCrops};
