//! `udass-raw export`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::data::resize::Size;
use udass_raw::nn::onnx::InputSize;
use udass_raw::run::export::{Export, export};

use super::configured::{Changes, Which};
use super::output::print;
use super::size;

/// Export a trained network for other programs.
///
/// The extension of the file selects the format: .onnx, for ONNX Runtime, TensorRT, OpenVINO, ncnn
/// and others, from operator set 17 on. The input `image` is f32 B,3,H,W: RGB, each channel from 0
/// to 255, which the graph normalizes. The output `logits`, f32 B,classes,H,W, is what predict and
/// eval compute for one window. Names and colors of the classes are in the file's metadata.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw export runs/toy_vit --out toy.onnx
  udass-raw export runs/gta_vit --out street.onnx --size 2048x1024 --weights teacher
  udass-raw export mic.pth --config gta_vit --out mic.onnx --dynamic")]
pub struct Args {
    /// The network: a run's folder, or its name in runs/, for the newest checkpoint; or a checkpoint
    /// of this program or of the reference, .pth or .safetensors.
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The file to write, FILE.onnx.
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

    /// Width and height of the input. [default: eval.window of the configuration, or eval.resize
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

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.changes.load(args.config.as_deref(), &args.run)?;
    let own = match config.eval.window {
        0 => config.eval.resize,
        side => [side; 2],
    };
    let Size { width, height } = args.size.unwrap_or(Size { width: own[0], height: own[1] });
    let size = match args.dynamic {
        true => InputSize::Dynamic,
        false => InputSize::Fixed([args.batch.map_or(1, usize::from), height, width]),
    };
    export(
        &config,
        &Export { checkpoint: &args.run, weights: args.weights.network(), out: &args.out, size },
    )?;
    print(&args.out.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
