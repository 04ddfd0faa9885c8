//! `udass-raw toy`

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use udass_raw::data::resize::Size;
use udass_raw::data::toy::{self, ToyWorld};

use super::output::tell;
use super::progress::Progress;
use super::size;

/// Generate toy data for trying everything out: street scenes as GTA, as SYNTHIA and as Cityscapes.
///
/// Writes DIR/gta, DIR/synthia and DIR/cityscapes, in the layouts of the real datasets and
/// prepared for training. The same seed gives the same files.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw toy data/toy                (the data of the preset toy_vit)
  udass-raw toy data/full --size full   (the sizes of the real datasets)
  udass-raw toy data/mid --size 512x256 --seed 7")]
pub struct Args {
    /// The folder to create.
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Size of the target's images: small (256x128), full (2048x1024), or WxH. The source's are in
    /// proportion, as GTA's are to Cityscapes'.
    #[arg(long, value_name = "SIZE", default_value = "small")]
    size: Sizes,

    /// How much the two domains differ in appearance, from 0 (not at all) to 2.
    #[arg(long, value_name = "GAP", default_value_t = ToyWorld::default().gap)]
    gap: f32,

    /// The random seed; another seed gives other images.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// The sizes of the source and target images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    source: Size,
    target: Size,
}

const SMALL: Sizes =
    Sizes { source: Size { width: 240, height: 132 }, target: Size { width: 256, height: 128 } };
const FULL: Sizes = Sizes {
    source: Size { width: 1914, height: 1052 },
    target: Size { width: 2048, height: 1024 },
};

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "small" => return Ok(SMALL),
            "full" => return Ok(FULL),
            _ => {}
        }
        let target = size::parse(text).map_err(|e| format!("{e}; or small, or full"))?;
        let part = |side: usize, of: usize, to: usize| (side * to + of / 2) / of;
        let source = Size {
            width: part(target.width, SMALL.target.width, SMALL.source.width).max(1),
            height: part(target.height, SMALL.target.height, SMALL.source.height).max(1),
        };
        Ok(Sizes { source, target })
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let progress = Progress::new("images");
    let Sizes { source, target } = args.size;
    let few = if args.size == FULL { ToyWorld::full() } else { ToyWorld::default() };
    let world = ToyWorld {
        seed: args.seed,
        gap: args.gap,
        source_size: (source.width, source.height),
        target_size: (target.width, target.height),
        ..few
    };
    toy::make(&args.dir, &world, &progress)?;
    progress.finish();
    tell(&format!("wrote {}: {} images", args.dir.display(), progress.done()));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_by_name_and_by_number() {
        assert_eq!("small".parse(), Ok(SMALL));
        assert_eq!("256x128".parse(), Ok(SMALL));
        assert_eq!("full".parse(), Ok(FULL));
        let doubled: Sizes = "512x256".parse().unwrap();
        assert_eq!(doubled.source, Size { width: 480, height: 264 });
        for wrong in ["", "512", "512x", "0x4", "4x99999", "-1x4", "tiny"] {
            let error = wrong.parse::<Sizes>().unwrap_err();
            assert!(error.contains("2048x1024") && error.contains("small"), "{wrong}: {error}");
        }
    }
}
