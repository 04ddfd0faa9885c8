//! Exports a trained network as a file for other programs. The name's extension selects the format.

mod onnx;

use std::path::Path;

use crate::checkpoint::deployed::{FilePrecision, deploy};
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
    /// The size of an ONNX graph's input. By default, one window of the configuration.
    pub size: Option<InputSize>,
    /// The type of the numbers in a safetensors file; f32 by default. ONNX graphs are in f32.
    pub precision: Option<FilePrecision>,
}

/// A format of exported files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A graph of ONNX operators.
    Onnx,
    /// Weights and configuration, for this program and its library.
    Safetensors,
}

impl Format {
    /// The extension of each format.
    const ALL: [(&'static str, Format); 2] =
        [("onnx", Format::Onnx), ("safetensors", Format::Safetensors)];

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
/// [`Error::Config`] for an unknown extension, a choice that the format does not have, or a size that
/// the network cannot process; [`Error::Weights`] if the checkpoint does not fit the configured
/// network; [`Error::Io`].
pub fn export(config: &Config, wanted: &Export) -> Result<()> {
    match Format::of(wanted.out)? {
        Format::Onnx => write_onnx(config, wanted),
        Format::Safetensors => {
            if wanted.size.is_some() {
                return Err(Error::config(format!(
                    "{}: a safetensors file takes images of every size: leave out the size",
                    wanted.out.display()
                )));
            }
            let file = files::open(wanted.checkpoint)?;
            let precision = wanted.precision.unwrap_or_default();
            deploy(config, &file, wanted.weights, precision, wanted.out)
        }
    }
}

fn write_onnx(config: &Config, wanted: &Export) -> Result<()> {
    if wanted.precision.is_some_and(|precision| precision != FilePrecision::F32) {
        return Err(Error::config(format!(
            "{}: ONNX graphs are written in f32: leave out the precision, or name a .safetensors file",
            wanted.out.display()
        )));
    }
    let size = wanted.size.unwrap_or_else(|| {
        let [width, height] = window(config);
        InputSize::Fixed([1, height, width])
    });
    onnx::check(config, size)?;
    let file = files::open(wanted.checkpoint)?;
    let device = build::device(config)?;
    let (network, weights) = build::trained(config, &device, &file, wanted.weights)?;
    let metadata = onnx::metadata(config, &file)?;
    model(&network, &device, &weights, size, metadata)?.write(wanted.out)
}

/// Returns width and height of a window of the configuration: of the whole image if it has none.
pub fn window(config: &Config) -> [usize; 2] {
    match config.eval.window {
        0 => config.eval.resize,
        side => [side; 2],
    }
}
