//! `udass-raw prepare`

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::config::LAYOUTS;
use udass_raw::data::classes::Classes;
use udass_raw::data::prepare::{ClassCount, Prepared, prepare_named};

use super::output::{print, tell};
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

    /// Leave out images that have no label, instead of refusing them. Training does the same with
    /// --set source.skip_unlabeled=true.
    #[arg(long)]
    skip_unlabeled: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let progress = Progress::new("labels");
    let (prepared, classes) =
        prepare_named(&args.layout, &args.place, args.skip_unlabeled, &progress)?;
    progress.finish();
    prepared.notes.iter().for_each(|note| tell(&format!("note: {note}")));
    if prepared.counted > 0 {
        for count in prepared.classes.iter().filter(|count| count.images == 0) {
            let name = classes.name(count.class.into());
            tell(&format!("warning: class {} ({name}) occurs in no label", count.class));
        }
        print(&table(&prepared, &classes))?;
    }
    tell(&format!(
        "prepared {}: {} labels, {} of them converted now",
        args.place.display(),
        progress.done(),
        prepared.written
    ));
    Ok(ExitCode::SUCCESS)
}

/// Returns a table of the pixels and images that contain each class.
fn table(prepared: &Prepared, classes: &Classes) -> String {
    let all = prepared.classes.iter().map(|count| count.pixels).sum::<u64>().max(1);
    let name = |count: &ClassCount| format!("{} {}", count.class, classes.name(count.class.into()));
    let wide = prepared.classes.iter().map(|count| name(count).chars().count()).max().unwrap_or(0);
    let mut text = format!("{:wide$}  {:>15}  {:>7}  {:>7}", "class", "pixels", "share", "images");
    for count in &prepared.classes {
        let share = 100.0 * count.pixels as f64 / all as f64;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{:wide$}  {:>15}  {share:>5.2} %  {:>7}",
            name(count),
            count.pixels,
            count.images
        );
    }
    text
}
