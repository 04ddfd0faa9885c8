//! The training loop, and what a run keeps and tells while it trains.

pub mod learner;
pub mod lock;
pub mod log;
pub mod replay;
pub mod signal;
pub mod trainer;
