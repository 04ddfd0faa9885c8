//! The training loop with its log, lock, signal handling, and replay of failed iterations.

pub mod best;
pub mod initial_state;
pub mod lock;
pub mod log;
pub mod replay;
pub mod resume;
mod saved;
pub mod signal;
pub mod trainer;
