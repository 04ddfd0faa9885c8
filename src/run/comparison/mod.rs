//! Runs beside published results: what a run measured, which published row it belongs to, and what
//! keeps the two from being comparable.

mod format;
mod html;
pub mod published;
mod run;
mod runs;
mod saved;
mod section;
mod text;

pub use runs::Comparison;
