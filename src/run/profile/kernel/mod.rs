//! Single kernels, at the sizes that they have in an iteration: timed alone, next to another version
//! of the same kernel, and run once for other profilers.

mod launches;
mod table;
mod tensors;
mod timing;
mod versions;

pub use launches::{Kernel, Listed};
pub use table::{Measurement, Measurements, listing};
pub use timing::{Caches, Sampling, Timing};
pub use versions::{Comparison, Differences};
