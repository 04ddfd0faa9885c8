//! `udass-raw replay`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::run::train::replay::replay;

use super::configured::device;
use super::output::print;

/// Number of names listed before "and N more".
const LISTED: usize = 8;

/// Rerun an iteration that produced non-finite numbers.
///
/// When a loss or gradient is not finite, training stops without applying the iteration, and writes
/// the state before it, with its batch, to the run's folder. This command reruns the iteration,
/// without the dataset, and prints its losses and which results and gradients are not finite.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw replay runs/gta_vit/not_finite/iteration_012345.safetensors")]
pub struct Args {
    /// The file that the run wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where to compute, instead of where the run did.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    device: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let replayed = replay(&args.file, args.device.as_deref())?;
    let mut lines = vec![format!("iteration {}", replayed.iteration)];
    lines.extend(replayed.report.terms.iter().map(|(name, value)| format!("  {name} {value}")));
    for (what, names) in [("results", &replayed.results), ("gradients", &replayed.gradients)] {
        if !names.is_empty() {
            let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
            let more = names.len().saturating_sub(LISTED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("{what} that are not finite: {shown}{more}"));
        }
    }
    lines.push(if replayed.report.failed {
        "not finite, as in the run".into()
    } else {
        "all finite this time: the device or the program differs from the run's".into()
    });
    print(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
