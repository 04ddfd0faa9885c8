//! `udass-raw config`

use std::process::ExitCode;

use clap::Subcommand;
use udass_raw::config::{Config, preset_notes};

use super::configured::Configured;
use super::output::print;

/// Show, list and compare configurations.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw config list
  udass-raw config show gta_vit --method mic --set data.batch=1
  udass-raw config show mine.toml > whole.toml
  udass-raw config diff gta_vit gta_cnn
  udass-raw config diff gta_vit runs/mine")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a whole configuration as TOML, with the file and line that each value comes from.
    Show {
        #[command(flatten)]
        configured: Configured,
    },
    /// Print the presets, each with a line about it.
    List,
    /// Print the keys whose values differ.
    Diff {
        /// A preset, a name in configs/, the path of a .toml file, or a run's folder.
        #[arg(value_name = "CONFIG")]
        first: String,
        /// Another one.
        #[arg(value_name = "CONFIG")]
        second: String,
    },
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Show { configured } => {
            print(configured.load()?.explained()?.trim_end())?;
        }
        Command::List => {
            let wide = preset_notes().map(|(name, _)| name.len()).max().unwrap_or(0);
            for (name, note) in preset_notes() {
                print(&format!("{name:wide$}  {note}"))?;
            }
        }
        Command::Diff { first, second } => {
            let [first, second] = [first, second].map(|name| Config::load(name, &[]));
            let (first, second) = (first?, second?);
            for (key, [first, second]) in first.compared(&second)? {
                print(&format!("{key}: {first} -> {second}"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
