//! The library's one error type. Every message names what was wrong (file, key, tensor) and,
//! where it helps, what to do about it.

use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration file or a `--set` override is wrong.
    #[error("{0}")]
    Config(String),

    /// A data set, an image or a label is missing or malformed.
    #[error("{}: {problem}", path.display())]
    Data { path: PathBuf, problem: String },

    /// A checkpoint or weight file does not fit the network.
    #[error("{}: {problem}", path.display())]
    Weights { path: PathBuf, problem: String },

    /// The operating system refused a file operation.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },

    /// Tensors whose shapes or types do not fit an operation.
    #[error("{op}: {problem}")]
    Shape { op: &'static str, problem: String },

    /// The device cannot do what was asked: absent, failed launch.
    #[error("{0}")]
    Device(String),

    /// The device has too little memory.
    #[error("{0}")]
    OutOfMemory(String),

    /// Training cannot go on.
    #[error("{0}")]
    Training(String),

    /// Training produced a number that is not finite.
    #[error("{0}")]
    NotFinite(String),
}

impl Error {
    /// The file that an error is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Data { path, .. } | Error::Weights { path, .. } | Error::Io { path, .. } => {
                Some(path)
            }
            _ => None,
        }
    }

    pub fn config(message: impl Into<String>) -> Self {
        Error::Config(message.into())
    }

    pub fn data(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Data { path: path.as_ref().into(), problem: problem.into() }
    }

    pub fn weights(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Weights { path: path.as_ref().into(), problem: problem.into() }
    }

    /// `action` completes "cannot …": "read", "create", "rename".
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().into(), action, source }
    }

    pub fn shape(op: &'static str, problem: impl Into<String>) -> Self {
        Error::Shape { op, problem: problem.into() }
    }

    pub fn device(message: impl Into<String>) -> Self {
        Error::Device(message.into())
    }
}
