//! Whole runs of the program on a small toy world: the same bits whatever happens on the way, what
//! is said of input that cannot be used, and predictions.

mod bad_input;
mod dropping;
mod folders;
mod inputs;
mod methods;
mod predict;
mod recompute;
mod resume;
mod submission;
mod support;
mod surviving;
