//! `udass-raw report`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::run::comparison::Comparison;

use super::output::{print, write};

/// Report runs, and compare them with published results.
///
/// Prints the IoU of every class next to the results published for the same task (GTA or SYNTHIA to
/// Cityscapes), the difference from the row of the same method and kind of network, and how the
/// run's data and settings differ from the published ones. Runs that differ only in their seed are
/// shown as one, with mean and standard deviation.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw report runs/toy_vit
  udass-raw report runs/a runs/b result.json --html report.html
  udass-raw report runs/toy_vit_seed* --csv curves.csv
  udass-raw report result.json --markdown report.md     (from eval … --json result.json)")]
pub struct Args {
    /// A run's folder (for its last evaluation), or a file written by `eval --json`.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,

    /// Also write the report, with all published methods and the curves, as Markdown to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Also write the report as one HTML page to this file: with the curves of losses, IoU, rate and
    /// confidence over the iterations, the images that the runs have saved, their settings and their
    /// hardware.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Also write the points of all curves as CSV to this file.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let comparison = Comparison::read(&args.runs)?;
    print(&comparison.terminal())?;
    if let Some(path) = &args.markdown {
        write(path, &comparison.markdown())?;
    }
    if let Some(path) = &args.html {
        write(path, &comparison.html())?;
    }
    if let Some(path) = &args.csv {
        write(path, &comparison.csv())?;
    }
    Ok(ExitCode::SUCCESS)
}
