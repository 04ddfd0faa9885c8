//! `udass-raw predict`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::run::progress::Counter;

use super::configured::{Configured, Which};
use super::connect::{self, Prediction};
use super::print;
use super::size::Size;

/// Segment images.
///
/// For every image writes <name>_overlay.png, the classes' colours over the image, and a label map:
/// <name>_labelIds.png with Cityscapes' ids for images called *_leftImg8bit.png, as its evaluation
/// server wants them, <name>.png for others. Prints the files written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw predict toy_vit street.png --checkpoint runs/toy_vit --out pictures
  udass-raw predict gta_vit *.jpg --checkpoint model.safetensors --out pictures --resize 2048x1024
  udass-raw predict gta_vit a.png --checkpoint model.safetensors --out pictures --logits a.safetensors")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,

    /// PNG or JPEG files.
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,

    /// The network: a checkpoint of this program (or a run's folder: its newest one) or of the
    /// reference, .pth or .safetensors.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,

    /// Which of a checkpoint's networks.
    #[arg(long, value_enum, default_value_t = Which::Student)]
    weights: Which,

    /// Folder for the pictures.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Write the image's logits too, averaged over the windows, before any softmax: safetensors,
    /// f32, `logits` of shape 1,H,W,classes. For one image.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,

    /// Scale images to exactly this before the network; results come in the image's own size.
    /// [default: the image's own size]
    #[arg(long, value_name = "WxH")]
    resize: Option<Size>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.configured.load([])?;
    anyhow::ensure!(
        args.logits.is_none() || args.images.len() == 1,
        "--logits: takes one image, not {}",
        args.images.len()
    );
    let counter = Counter::new("images");
    let wanted = Prediction {
        checkpoint: &args.checkpoint,
        weights: args.weights,
        images: &args.images,
        out: &args.out,
        logits: args.logits.as_deref(),
        resize: args.resize,
    };
    let files = connect::predict(&config, &wanted, &counter.advance())?;
    counter.finish();
    for file in files {
        print(&file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
