//! Exports a trained network as a file for other programs. The name's extension selects the format.

mod onnx;

use std::path::Path;

use crate::checkpoint::files;
use crate::checkpoint::weights::Network;
use crate::config::Config;
use crate::nn::onnx::{InputSize, model};
use crate::run::build;
use crate::{Error, Result};

/// The arguments of [`export`].
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// A file, or a run's folder for its newest checkpoint.
    pub checkpoint: &'a Path,
    /// Which of the checkpoint's networks to export.
    pub weights: Network,
    /// The file to write.
    pub out: &'a Path,
    /// The size of the input, in formats that hold one.
    pub size: InputSize,
}

/// A format of exported files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A graph of ONNX operators.
    Onnx,
}

impl Format {
    /// The extension of each format.
    const ALL: [(&'static str, Format); 1] = [("onnx", Format::Onnx)];

    fn of(path: &Path) -> Result<Format> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let found = Format::ALL.into_iter().find(|(known, _)| extension == *known);
        found.map(|(_, format)| format).ok_or_else(|| {
            let known = Format::ALL.map(|(known, _)| format!(".{known}")).join(" or ");
            Error::config(format!(
                "{}: the extension selects the format: give the file a name that ends in {known}",
                path.display()
            ))
        })
    }
}

/// Writes one of the networks of a checkpoint in the format that the file's extension selects.
///
/// # Errors
/// [`Error::Config`] for an unknown extension, or a size that the network cannot process;
/// [`Error::Weights`] if the checkpoint does not fit the configured network; [`Error::Io`].
pub fn export(config: &Config, wanted: &Export) -> Result<()> {
    let format = Format::of(wanted.out)?;
    onnx::check(config, wanted.size)?;
    let file = files::open(wanted.checkpoint)?;
    let device = build::device(config)?;
    let (network, weights) = build::trained(config, &device, &file, wanted.weights)?;
    match format {
        Format::Onnx => {
            let metadata = onnx::metadata(config, &file)?;
            model(&network, &device, &weights, wanted.size, metadata)?.write(wanted.out)
        }
    }
}
