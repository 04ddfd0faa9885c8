//! `udass-raw eval`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::data::classes::Classes;
use udass_raw::run::eval::evaluate::evaluate;
use udass_raw::run::eval::page::{Worst, html};
use udass_raw::run::eval::per_image::csv;

use super::configured::{Changes, Which};
use super::output::{is_standard, print, tell, write};
use super::progress::Progress;

/// Evaluate a network on the target's validation images.
///
/// Prints IoU and accuracy of every class and their means, in percent. It can run during training.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw eval --checkpoint runs/toy_vit
  udass-raw eval gta_vit --checkpoint udass.pth --weights teacher --json result.json
  udass-raw eval --checkpoint runs/gta_vit --html worst.html --csv images.csv
  udass-raw eval gta_vit --checkpoint model.safetensors --set eval.batch=4")]
pub struct Args {
    /// A preset (gta_vit, toy_cnn, daformer, …), a name in configs/, or the path of a .toml file.
    /// [default: the configuration that the checkpoint holds]
    #[arg(value_name = "CONFIG")]
    config: Option<String>,

    #[command(flatten)]
    changes: Changes,

    /// The network: a checkpoint of this program (or a run's folder, or its name in runs/, for the
    /// newest one) or of the reference, .pth or .safetensors.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,

    /// Which of the checkpoint's networks to use.
    #[arg(long, value_enum, default_value_t = Which::Student)]
    weights: Which,

    /// Also write the result, with the confusion matrix and the result for each image, to this file.
    /// With `-`, write it to standard output, and the table to standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also write the result for each image to this file: mean IoU, accuracy, labeled pixels, and
    /// the IoU of every class.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Also write an HTML page: the classes, the confusion matrix, and the worst images with label,
    /// prediction and difference, to find faults of labels and of the network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// How many images --html shows.
    #[arg(long, value_name = "N", default_value_t = 24, requires = "html")]
    worst: usize,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.changes.load(args.config.as_deref(), &args.checkpoint)?;
    let progress = Progress::new("images");
    let checkpoint = args.checkpoint.display().to_string();
    let (name, which) = (args.config.as_ref().unwrap_or(&checkpoint), args.weights.network());
    let shown = if args.html.is_some() { args.worst } else { 0 };
    let mut worst = Worst::new(Classes::new(&config.dataset), shown);
    let report = evaluate(&config, name, &args.checkpoint, which, &progress, &mut worst)?;
    progress.finish();
    // Print before writing the file: if that fails, the result of a long evaluation is not lost.
    match args.json.as_deref().is_some_and(is_standard) {
        true => tell(&report.table()),
        false => print(&report.table())?,
    }
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", report.to_json()))?;
    }
    if let Some(path) = &args.csv {
        write(path, &csv(&report.per_image, &report.classes))?;
    }
    if let Some(path) = &args.html {
        write(path, &html(&report, &worst))?;
    }
    Ok(ExitCode::SUCCESS)
}
