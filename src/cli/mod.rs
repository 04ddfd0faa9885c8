//! The commands: they parse arguments and show progress and errors; the library does the work.

mod config;
mod configured;
mod eval;
mod export;
mod info;
mod output;
mod predict;
mod prepare;
mod profile;
mod progress;
mod replay;
mod report;
mod size;
mod toy;
mod train;
mod weights;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use udass_raw::device::tool_problem;

use output::tell;
pub use output::tell_error;

/// Trains and evaluates unsupervised domain-adaptive semantic segmentation on the GPU or the CPU,
/// with its own kernels.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Start here (no GPU, no download):
  udass-raw toy data/toy
  udass-raw train toy_vit
  udass-raw eval --checkpoint runs/toy_vit
  udass-raw report runs/toy_vit --html report.html
  udass-raw profile toy_vit

The published setting:
  udass-raw prepare gta data/gta
  udass-raw prepare cityscapes data/cityscapes
  udass-raw train gta_vit

`udass-raw help COMMAND` describes a command.";

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Predict(predict::Args),
    Export(export::Args),
    Report(report::Args),
    Profile(profile::Args),
    Prepare(prepare::Args),
    Toy(toy::Args),
    Config(config::Args),
    Replay(replay::Args),
    Weights(weights::Args),
    Info(info::Args),
}

/// Runs the selected command.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(problem) = tool_problem() {
        tell(&format!("warning: {problem}"));
    }
    match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Prepare(args) => prepare::run(&args),
        Command::Toy(args) => toy::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Weights(args) => weights::run(&args),
        Command::Info(args) => info::run(&args),
    }
}
