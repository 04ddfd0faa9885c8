//! `udass-raw prepare`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::config::LAYOUTS;
use udass_raw::data::prepare::prepare_named;

use super::output::tell;
use super::progress::Progress;

/// Prepare a downloaded dataset for training.
///
/// Writes a *_labelTrainIds.png next to every label, and the statistics that rare-class sampling
/// needs, in the format of the reference's tools. The labels themselves are not changed, and it is
/// safe to run this again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw prepare gta data/gta                  (holds images/ and labels/)
  udass-raw prepare synthia data/synthia          (holds RGB/ and GT/LABELS/)
  udass-raw prepare cityscapes data/cityscapes    (holds leftImg8bit/ and gtFine/)
  udass-raw prepare files my.toml                 (the files of [source.files] in my.toml)")]
pub struct Args {
    /// Which dataset it is.
    #[arg(value_name = "LAYOUT", value_parser = LAYOUTS)]
    layout: String,

    /// Its folder; for "files", the configuration whose [source.files] describes it.
    #[arg(value_name = "PLACE")]
    place: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let progress = Progress::new("labels");
    prepare_named(&args.layout, &args.place, &progress)?;
    progress.finish();
    tell(&format!("prepared {}: {} labels", args.place.display(), progress.done()));
    Ok(ExitCode::SUCCESS)
}
