//! The training loop with its log, lock, signal handling, the check before it, and replay of failed
//! iterations.

pub mod best;
pub mod check;
mod checkpoints;
mod group;
pub mod initial_state;
pub mod lock;
pub mod log;
mod records;
pub mod replay;
pub mod resume;
pub mod signal;
pub mod tensorboard;
pub mod trainer;
mod whole_batch;
