//! The library's error type. Every message names the file, configuration key or tensor at fault
//! and, where it helps, says what to do about it. Names in messages are shown without the characters
//! that would control a terminal.

use std::path::{Path, PathBuf};

use crate::printable::{printable, shown};

/// The result type of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration file or a `--set` override is invalid.
    #[error("{}", printable(.0))]
    Config(String),

    /// A dataset, an image or a label is missing or malformed.
    #[error("{}: {}", shown(path), printable(problem))]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A checkpoint or weight file does not match the network.
    #[error("{}: {}", shown(path), printable(problem))]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A file operation failed.
    #[error("{}: cannot {action}: {source}", shown(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The verb of what failed, as in "cannot read".
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// The shapes or element types of tensors do not fit an operation.
    #[error("{op}: {}", printable(problem))]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit.
        problem: String,
    },

    /// The device is absent, a launch failed, or the device cannot run the operation.
    #[error("{}", printable(.0))]
    Device(String),

    /// The device is out of memory.
    #[error("{}", printable(.0))]
    OutOfMemory(String),

    /// Training cannot continue.
    #[error("{}", printable(.0))]
    Training(String),

    /// Training produced a value that is not finite.
    #[error("{}", printable(.0))]
    NotFinite(String),

    /// The caller asked to stop.
    #[error("stopped before the end, as asked")]
    Cancelled,

    /// Several problems that can be mended at once.
    #[error("{} problems:{}", .0.len(), listed(.0))]
    Several(Vec<Error>),
}

fn listed(errors: &[Error]) -> String {
    errors.iter().map(|error| format!("\n{}", error.to_string().replace('\n', "\n  "))).collect()
}

/// Returns both values, or the errors of both.
pub(crate) fn both<A, B>(a: Result<A>, b: Result<B>) -> Result<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(a.and(b)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

impl Error {
    /// Returns the file that the error is about, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Data { path, .. } | Error::Weights { path, .. } | Error::Io { path, .. } => {
                Some(path)
            }
            _ => None,
        }
    }

    fn and(self, other: Error) -> Error {
        let list = |error| match error {
            Error::Several(errors) => errors,
            error => vec![error],
        };
        let mut errors = list(self);
        errors.extend(list(other));
        Error::Several(errors)
    }

    /// Appends settings that need less memory to an [`Error::OutOfMemory`] that names none yet.
    pub(crate) fn with_less_memory(self, settings: impl FnOnce() -> Vec<String>) -> Error {
        const ADVICE: &str = "Less memory is needed with";
        match self {
            Error::OutOfMemory(problem) if !problem.contains(ADVICE) => {
                Error::OutOfMemory(format!("{problem}\n  {ADVICE} {}", settings().join("; ")))
            }
            other => other,
        }
    }

    /// Creates an [`Error::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Error::Config(message.into())
    }

    /// Creates an [`Error::Data`].
    pub fn data(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Data { path: path.as_ref().into(), problem: problem.into() }
    }

    /// Creates an [`Error::Weights`].
    pub fn weights(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Weights { path: path.as_ref().into(), problem: problem.into() }
    }

    /// Creates an [`Error::Io`]. `action` completes "cannot …", for example "read", "create" or
    /// "rename".
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().into(), action, source }
    }

    /// Creates an [`Error::Shape`].
    pub fn shape(op: &'static str, problem: impl Into<String>) -> Self {
        Error::Shape { op, problem: problem.into() }
    }

    /// Creates an [`Error::Device`].
    pub fn device(message: impl Into<String>) -> Self {
        Error::Device(message.into())
    }
}
