//! The error type of the crate.

use std::fmt;

use crate::report::Violation;

/// An error of the block emulator, or a violation that it found.
#[derive(Debug)]
pub enum Error {
    /// A library cannot be loaded, or lacks a kernel.
    Library(String),
    /// The stack of a thread cannot be allocated.
    Stack(String),
    /// A thread broke a rule.
    Violation(Box<Violation>),
    /// The result differs from that of the reference.
    Difference(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Library(problem) | Error::Difference(problem) => f.write_str(problem),
            Error::Stack(problem) => write!(f, "no stack for a thread: {problem}"),
            Error::Violation(violation) => violation.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
