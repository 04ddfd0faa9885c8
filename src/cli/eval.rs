//! `udass-raw eval`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::checkpoint::atomic::write_atomic;
use udass_raw::run::eval::evaluate::evaluate;

use super::configured::{Configured, Which};
use super::output::print;
use super::progress::Progress;

/// Measure a network on the target's validation images.
///
/// Prints IoU and accuracy of every class and their means, in percent. Runs beside a training run too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw eval toy_vit --checkpoint runs/toy_vit
  udass-raw eval gta_vit --checkpoint udass.pth --weights teacher --json result.json
  udass-raw eval gta_vit --checkpoint model.safetensors --set eval.batch=4")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,

    /// The network: a checkpoint of this program (or a run's folder: its newest one) or of the
    /// reference, .pth or .safetensors.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,

    /// Which of a checkpoint's networks.
    #[arg(long, value_enum, default_value_t = Which::Student)]
    weights: Which,

    /// Write the result to this file as well, with the confusion matrix.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.configured.load([])?;
    let progress = Progress::new("images");
    let (name, which) = (&args.configured.config, args.weights.network());
    let report = evaluate(&config, name, &args.checkpoint, which, &progress)?;
    progress.finish();
    // First what needs no disk: an evaluation takes long, and the file may fail.
    print(&report.table())?;
    if let Some(path) = &args.json {
        let json = format!("{:#}\n", report.to_json());
        write_atomic(path, |file| file.write_all(json.as_bytes()))?;
    }
    Ok(ExitCode::SUCCESS)
}
