//! `udass-raw eval`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::run::eval::evaluate::evaluate;

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

    /// Also write the result, with the confusion matrix, to this file. With `-`, write it to
    /// standard output, and the table to standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.changes.load(args.config.as_deref(), &args.checkpoint)?;
    let progress = Progress::new("images");
    let checkpoint = args.checkpoint.display().to_string();
    let (name, which) = (args.config.as_ref().unwrap_or(&checkpoint), args.weights.network());
    let report = evaluate(&config, name, &args.checkpoint, which, &progress)?;
    progress.finish();
    // Print before writing the file: if that fails, the result of a long evaluation is not lost.
    match args.json.as_deref().is_some_and(is_standard) {
        true => tell(&report.table()),
        false => print(&report.table())?,
    }
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", report.to_json()))?;
    }
    Ok(ExitCode::SUCCESS)
}
