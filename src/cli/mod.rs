//! The commands: they parse arguments and show progress and errors; the library does the work.

mod config;
mod configured;
mod eval;
mod export;
mod generate;
mod info;
mod output;
mod predict;
mod prepare;
mod processes;
mod profile;
mod progress;
mod replay;
mod report;
mod seeds;
mod size;
mod toy;
mod train;
mod weights;

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory, Parser, Subcommand};
use udass_raw::device::tool_problem;

pub use output::tell_error;
use output::{Verbosity, detail, set_verbosity, tell};

/// Trains and evaluates unsupervised domain-adaptive semantic segmentation on the GPU or the CPU,
/// with its own kernels.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Write results and errors alone: no messages and no progress.
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 100)]
    quiet: bool,

    /// Also say where the configuration comes from, and how much time and memory the command took.
    #[arg(short, long, global = true, display_order = 100)]
    verbose: bool,
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

`udass-raw help COMMAND` describes a command.

Exit status:
  0    done; also a run that a signal other than Ctrl-C has stopped, with a checkpoint
  1    failed: standard error says why
  2    the command line is wrong
  130  stopped by Ctrl-C, with a checkpoint";

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
    /// Write shell completions and manual pages.
    #[command(hide = true)]
    Generate(generate::Args),
}

/// Runs the selected command.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    set_verbosity(match (cli.quiet, cli.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Usual,
    });
    let begun = Instant::now();
    detail(&format!("udass-raw {} ({})", env!("CARGO_PKG_VERSION"), env!("UDASS_COMMIT")));
    let result = perform(cli.command);
    detail(&format!("{:.1} s{}", begun.elapsed().as_secs_f64(), peak_memory()));
    result
}

/// Returns the most memory that this process has had, where the system reports it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or(String::new(), |kib| format!(", at most {} MiB resident", kib >> 10))
}

fn perform(command: Command) -> anyhow::Result<ExitCode> {
    if let Some(problem) = tool_problem() {
        tell(&format!("warning: {problem}"));
    }
    match command {
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
        Command::Generate(args) => generate::run(&args, Cli::command()),
    }
}
