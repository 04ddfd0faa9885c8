//! Tests whole runs of the program on a small toy world: identical bits whatever interrupts a run,
//! error messages for unusable input, and predictions.

mod bad_input;
mod check;
mod checkpoints;
mod dropping;
mod evaluate;
mod export;
mod faults;
mod fidelity;
mod folders;
mod inputs;
mod limits;
mod methods;
mod predict;
mod recompute;
mod resume;
mod seeds;
mod signals;
mod submission;
mod support;
mod surviving;
mod tensorboard;
