//! `udass-raw prepare`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use udass_raw::run::progress::Counter;

use super::{connect, tell};

/// Get a downloaded data set ready for training.
///
/// Writes a *_labelTrainIds.png beside every label, and the statistics that rare-class sampling
/// needs, in the same form as the reference's tools. Labels themselves are not touched; running it
/// again does no harm.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw prepare gta data/gta                  (holds images/ and labels/)
  udass-raw prepare cityscapes data/cityscapes    (holds leftImg8bit/ and gtFine/)")]
pub struct Args {
    /// Which data set it is.
    #[arg(value_enum)]
    layout: Layout,

    /// Its folder.
    #[arg(value_name = "DIR")]
    root: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Layout {
    Gta,
    Cityscapes,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let layout = match args.layout {
        Layout::Gta => "gta",
        Layout::Cityscapes => "cityscapes",
    };
    let counter = Counter::new("labels");
    connect::prepare(layout, &args.root, &counter.advance())?;
    counter.finish();
    tell(&format!("prepared {}: {} labels", args.root.display(), counter.done()));
    Ok(ExitCode::SUCCESS)
}
