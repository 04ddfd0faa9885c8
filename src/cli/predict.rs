//! `udass-raw predict`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use udass_raw::config::Config;
use udass_raw::data::decode::listed;
use udass_raw::data::layouts;
use udass_raw::data::resize::Size;
use udass_raw::run::eval::predict::{Prediction, Submission, predict, submit};

use super::configured::{Changes, Which};
use super::output::{complain, print};
use super::progress::Progress;
use super::size;

/// Segment images.
///
/// For every image this writes <name>_overlay.png, with the class colors over the image, and a
/// label map: <name>_labelIds.png with Cityscapes' ids for images named *_leftImg8bit.png, as its
/// evaluation server expects, and <name>.png for others. Prints the files written.
///
/// With --submission, segments a whole split of Cityscapes, ACDC or Dark Zurich for its server
/// instead.
#[derive(Debug, clap::Args)]
#[command(override_usage = "\
udass-raw predict [OPTIONS] --checkpoint <FILE> --out <DIR> [CONFIG] <IMAGE>...
       udass-raw predict [OPTIONS] --checkpoint <FILE> --submission <ZIP> [CONFIG]")]
#[command(after_help = "\
Examples:
  udass-raw predict street.png --checkpoint runs/toy_vit --out pictures
  udass-raw predict gta_vit *.jpg --checkpoint model.safetensors --out pictures --resize 2048x1024
  udass-raw predict gta_vit a.png --checkpoint model.safetensors --out pictures --logits a.safetensors
  udass-raw predict gta_vit --checkpoint runs/gta_vit --submission results.zip")]
pub struct Args {
    /// PNG or JPEG files, or folders or globs of them. Before them, the configuration may be named: a preset,
    /// a name in configs/, or the path of a .toml file. [default: the one that the checkpoint holds]
    #[arg(value_name = "IMAGE", required_unless_present = "submission")]
    words: Vec<PathBuf>,

    #[command(flatten)]
    changes: Changes,

    /// The network: a checkpoint of this program (or a run's folder, or its name in runs/, for the
    /// newest one) or of the reference, .pth or .safetensors.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,

    /// Which of the checkpoint's networks to use.
    #[arg(long, value_enum, default_value_t = Which::Student)]
    weights: Which,

    /// Folder for the output images.
    #[arg(long, value_name = "DIR", required_unless_present = "submission")]
    out: Option<PathBuf>,

    /// Also write the image's logits, averaged over the windows, before any softmax: safetensors,
    /// f32, `logits` of shape 1,H,W,classes. For one image only.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,

    /// Scale images to exactly this size before the network; results have the image's own size.
    /// [default: the image's own size]
    #[arg(long, value_name = "WxH", value_parser = size::parse)]
    resize: Option<Size>,

    /// Segment a split of the configured target, as eval does, and write this zip for its evaluation
    /// server: label ids for Cityscapes, train ids for ACDC and Dark Zurich. Labels are not needed.
    #[arg(long, value_name = "ZIP", conflicts_with_all = ["out", "logits", "resize"])]
    submission: Option<PathBuf>,

    /// The split that --submission is for.
    #[arg(long, value_enum, default_value = "test", requires = "submission")]
    split: Split,
}

/// The split to segment. The server evaluates `Test`; `Val` is for trying the command out.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Split {
    Test,
    Val,
}

impl Args {
    /// Returns the configuration's name, if the first word is one, and the images. A word that is
    /// no file and has no ending is taken for a misspelled configuration.
    fn configuration(&self) -> (Option<&str>, &[PathBuf]) {
        let Some((first, images)) = self.words.split_first() else { return (None, &[]) };
        let misspelled = || !first.exists() && first.extension().is_none();
        match first.to_str().filter(|word| Config::is_name(word) || misspelled()) {
            Some(name) => (Some(name), images),
            None => (None, &self.words),
        }
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (name, images) = args.configuration();
    if args.submission.is_some() != images.is_empty() {
        complain(match images {
            [] => "error: name the images to segment, or folders of them",
            _ => "error: --submission segments a whole split and cannot be used with images",
        });
        return Ok(ExitCode::from(2));
    }
    let config = args.changes.load(name, &args.checkpoint)?;
    if args.logits.is_some() {
        let one = matches!(images, [image] if !image.is_dir()) && listed(images)?.len() == 1;
        anyhow::ensure!(one, "--logits: takes one image file");
    }
    let progress = Progress::new("images");
    let (checkpoint, weights) = (args.checkpoint.as_path(), args.weights.network());
    if let Some(zip) = &args.submission {
        let split = match args.split {
            Split::Test => layouts::Split::Test,
            Split::Val => layouts::Split::Val,
        };
        submit(&config, &Submission { checkpoint, weights, zip, split }, &progress)?;
        progress.finish();
        print(&zip.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = Prediction {
        checkpoint,
        weights,
        images,
        // Required where there is no --submission.
        out: args.out.as_deref().unwrap_or(Path::new("")),
        logits: args.logits.as_deref(),
        resize: args.resize,
    };
    let files = predict(&config, &wanted, &progress)?;
    progress.finish();
    for file in files {
        print(&file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
