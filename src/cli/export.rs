//! `udass-raw export`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use udass_raw::checkpoint::deployed::FilePrecision;
use udass_raw::data::resize::Size;
use udass_raw::nn::onnx::InputSize;
use udass_raw::run::export::{Export, export, window};

use super::configured::{Changes, Which};
use super::output::print;
use super::size;

/// Export a trained network for other programs.
///
/// The extension of the file selects the format. .onnx, from operator set 17 on, is for ONNX Runtime,
/// TensorRT, OpenVINO, ncnn and others. The input `image` is f32 B,3,H,W: RGB, each channel from 0
/// to 255, which the graph normalizes. The output `logits`, f32 B,classes,H,W, is what predict and
/// eval compute for one window. Names and colors of the classes are in the file's metadata.
/// .safetensors is the one file that this program and its library need: weights, configuration,
/// names and colors of the classes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw export runs/toy_vit --out toy.onnx
  udass-raw export runs/gta_vit --out street.onnx --size 2048x1024 --weights teacher
  udass-raw export mic.pth --config gta_vit --out mic.onnx --dynamic
  udass-raw export runs/gta_vit --out street.safetensors --precision bf16")]
pub struct Args {
    /// The network: a run's folder, or its name in runs/, for the newest checkpoint; or a checkpoint
    /// of this program or of the reference, .pth or .safetensors.
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The file to write, FILE.onnx or FILE.safetensors.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// A preset (gta_vit, toy_cnn, daformer, …), a name in configs/, or the path of a .toml file.
    /// [default: the configuration that the checkpoint holds]
    #[arg(long, value_name = "CONFIG")]
    config: Option<String>,

    #[command(flatten)]
    changes: Changes,

    /// Which of the checkpoint's networks to export.
    #[arg(long, value_enum, default_value_t = Which::Student)]
    weights: Which,

    /// The type of the numbers in a .safetensors file. [default: f32]
    #[arg(long, value_enum)]
    precision: Option<Numbers>,

    /// Width and height of an ONNX graph's input. [default: eval.window of the configuration, or eval.resize
    /// where that is 0]
    #[arg(long, value_name = "WxH", value_parser = size::parse)]
    size: Option<Size>,

    /// Images per batch, with a fixed size. [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,

    /// Leave batch, height and width open: the file then takes images of any number and size. HRDA
    /// needs sides that are multiples of 32, of at least 64.
    #[arg(long, conflicts_with_all = ["size", "batch"])]
    dynamic: bool,
}

/// The type of the numbers in a file.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Numbers {
    F32,
    Bf16,
    F16,
}

impl From<Numbers> for FilePrecision {
    fn from(numbers: Numbers) -> FilePrecision {
        match numbers {
            Numbers::F32 => FilePrecision::F32,
            Numbers::Bf16 => FilePrecision::Bf16,
            Numbers::F16 => FilePrecision::F16,
        }
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.changes.load(args.config.as_deref(), &args.run)?;
    let size = match (args.dynamic, args.size, args.batch) {
        (true, ..) => Some(InputSize::Dynamic),
        (false, None, None) => None,
        (false, size, batch) => {
            let [width, height] = window(&config);
            let Size { width, height } = size.unwrap_or(Size { width, height });
            Some(InputSize::Fixed([batch.map_or(1, usize::from), height, width]))
        }
    };
    let (weights, precision) = (args.weights.network(), args.precision.map(Into::into));
    export(&config, &Export { checkpoint: &args.run, weights, out: &args.out, size, precision })?;
    print(&args.out.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
