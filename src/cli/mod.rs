//! The commands: arguments in, errors and progress out. What they do is the library's.

mod configured;
mod connect;
mod eval;
mod predict;
mod prepare;
mod profile;
mod replay;
mod report;
mod size;
mod toy;
mod train;
mod weights;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use udass_raw::device::tool_problem;

/// Trains and evaluates unsupervised domain-adaptive semantic segmentation, on the GPU or the CPU,
/// with kernels of its own.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Begin here (no GPU, no download):
  udass-raw toy data/toy
  udass-raw train toy_vit
  udass-raw eval toy_vit --checkpoint runs/toy_vit
  udass-raw report runs/toy_vit --html report.html
  udass-raw profile toy_vit

The published setting:
  udass-raw prepare gta data/gta
  udass-raw prepare cityscapes data/cityscapes
  udass-raw train gta_vit

`udass-raw help COMMAND` says more about each.";

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Predict(predict::Args),
    Report(report::Args),
    Profile(profile::Args),
    Prepare(prepare::Args),
    Toy(toy::Args),
    Replay(replay::Args),
    Weights(weights::Args),
}

/// Runs what was asked for.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(problem) = tool_problem() {
        tell(&format!("warning: {problem}"));
    }
    match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Prepare(args) => prepare::run(&args),
        Command::Toy(args) => toy::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Weights(args) => weights::run(&args),
    }
}

/// A line or block for the user, on standard error. Nobody listening is no failure.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A result, on standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}
