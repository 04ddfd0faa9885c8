//! `udass-raw eval`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::checkpoint::atomic::write_atomic;
use udass_raw::run::eval::evaluate::evaluate;

use super::configured::{Configured, Which};
use super::output::print;
use super::progress::Progress;

/// Evaluate a network on the target's validation images.
///
/// Prints IoU and accuracy of every class and their means, in percent. It can run during training.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw eval toy_vit --checkpoint runs/toy_vit
  udass-raw eval gta_vit --checkpoint udass.pth --weights teacher --json result.json
  udass-raw eval gta_vit --checkpoint model.safetensors --set eval.batch=4")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,

    /// The network: a checkpoint of this program (or a run's folder for its newest one) or of the
    /// reference, .pth or .safetensors.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,

    /// Which of the checkpoint's networks to use.
    #[arg(long, value_enum, default_value_t = Which::Student)]
    weights: Which,

    /// Also write the result, with the confusion matrix, to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.configured.load([])?;
    let progress = Progress::new("images");
    let (name, which) = (&args.configured.config, args.weights.network());
    let report = evaluate(&config, name, &args.checkpoint, which, &progress)?;
    progress.finish();
    // Print before writing the file: if that fails, the result of a long evaluation is not lost.
    print(&report.table())?;
    if let Some(path) = &args.json {
        let json = format!("{:#}\n", report.to_json());
        write_atomic(path, |file| file.write_all(json.as_bytes()))?;
    }
    Ok(ExitCode::SUCCESS)
}
