//! `udass-raw report`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::run::comparison::Comparison;

use super::output::{print, write};

/// Compare runs with published results.
///
/// Prints the IoU of every class next to the results published for the same task (GTA or SYNTHIA to
/// Cityscapes), the difference from the row of the same method and kind of network, and how the
/// run's data and settings differ from the published ones.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw report runs/toy_vit
  udass-raw report runs/a runs/b result.json --html report.html
  udass-raw report result.json --markdown report.md     (from eval … --json result.json)")]
pub struct Args {
    /// A run's folder (for its last evaluation), or a file written by `eval --json`.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,

    /// Also write the comparison, with all published methods, as Markdown to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Also write the comparison, with bar charts, as one HTML page to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let comparison = Comparison::read(&args.runs)?;
    print(&comparison.terminal())?;
    let pages = [(&args.markdown, comparison.markdown()), (&args.html, comparison.html())];
    for (path, text) in pages {
        path.as_ref().map_or(Ok(()), |path| write(path, &text))?;
    }
    Ok(ExitCode::SUCCESS)
}
