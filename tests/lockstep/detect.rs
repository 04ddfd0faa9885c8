//! Faults that must be found.
