//! Profiling: where an iteration spends its time, by kernel, layer and pass, relative to the
//! device's peak rates.

mod html;
mod iteration;
pub mod kernel;
mod measured;
pub mod model;
mod rates;
mod summary;
mod synthetic;
mod table;
mod trace;
mod units;

pub use iteration::{Predicted, measure, predict};
pub use measured::{Measured, Modeled};
pub use rates::Rates;
pub use synthetic::Synthetic;
