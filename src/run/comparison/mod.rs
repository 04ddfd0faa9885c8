//! Comparison of runs with published results: what a run measured, which published row it
//! corresponds to, and what makes the two incomparable.

mod format;
mod html;
pub mod published;
mod run;
mod runs;
mod saved;
mod section;
mod spread;
mod text;

pub use runs::Comparison;
pub use spread::Spread;
