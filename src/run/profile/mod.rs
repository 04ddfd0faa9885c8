//! Profiling: where an iteration spends its time, by kernel, layer and pass, relative to the
//! device's peak rates.

mod html;
mod iteration;
pub mod kernel;
mod measured;
mod rates;
mod summary;
mod synthetic;
mod table;
mod trace;
mod units;

pub use iteration::{measure, predict};
pub use measured::Measured;
pub use rates::Rates;
pub use synthetic::Synthetic;
