//! The error types of the crate.

use std::fmt;

use crate::fault::Fault;

/// PTX text that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The kernel, if the text is inside of one.
    pub kernel: Option<String>,
    /// Line of the PTX text.
    pub line: u32,
    /// What is wrong.
    pub problem: String,
}

impl SyntaxError {
    pub(crate) fn at(line: u32, problem: impl Into<String>) -> SyntaxError {
        SyntaxError { kernel: None, line, problem: problem.into() }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(kernel) = &self.kernel {
            write!(f, "{kernel}, ")?;
        }
        write!(f, "PTX line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for SyntaxError {}

/// An error of this crate.
#[derive(Debug)]
pub enum Error {
    /// The PTX text is not understood.
    Syntax(SyntaxError),
    /// nvcc cannot be run, or does not accept a file.
    Compile(String),
    /// A launch does not fit its kernel.
    Launch(String),
    /// A thread broke a rule.
    Fault(Box<Fault>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Syntax(problem) => problem.fmt(f),
            Error::Compile(problem) | Error::Launch(problem) => f.write_str(problem),
            Error::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<SyntaxError> for Error {
    fn from(problem: SyntaxError) -> Error {
        Error::Syntax(problem)
    }
}

impl From<Box<Fault>> for Error {
    fn from(fault: Box<Fault>) -> Error {
        Error::Fault(fault)
    }
}
