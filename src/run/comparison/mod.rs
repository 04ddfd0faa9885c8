//! Reports of runs: their numbers over the iterations, what they measured, which published results
//! that corresponds to, and what makes the two incomparable.

mod charts;
mod csv;
mod format;
mod history;
mod html;
mod pictures;
pub mod published;
mod run;
mod runs;
mod saved;
mod section;
mod settings;
mod spread;
mod svg;
mod text;

pub use runs::Comparison;
pub use spread::Spread;
