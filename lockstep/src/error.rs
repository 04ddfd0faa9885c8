//! Why a launch failed.

use std::fmt;

use crate::report::Violation;

/// Why a launch cannot be run, or what is wrong with it.
#[derive(Debug)]
pub enum Error {
    Library(String),
    Stack(String),
    Violation(Box<Violation>),
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
