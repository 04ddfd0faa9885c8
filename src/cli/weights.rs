//! `udass-raw weights`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::verify::verify as verify_file;
use udass_raw::checkpoint::{convert, files, identity};

use super::configured::Which;
use super::output::{print, tell};

/// Inspect, convert and verify weight files.
///
/// Reads .safetensors and PyTorch's .pth, in both of its formats. No code in a .pth is run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw weights inspect mit_b5.pth
  udass-raw weights convert udass_gta.pth teacher.safetensors --weights teacher
  udass-raw weights convert runs/gta_vit gta_vit.pth
  udass-raw weights verify resnet101_v1c-e67eebb6.pth")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print what a file is, and each tensor's name, type, shape and checksum (CRC-32).
    Inspect {
        /// A .pth or .safetensors file, or a run's folder for its newest checkpoint.
        file: PathBuf,
    },
    /// Convert a file to the format that OUT's extension names, .pth or .safetensors.
    ///
    /// Names, types, values and order are kept, and converting back is exact. As .pth, a run's
    /// checkpoint becomes a checkpoint of the reference, which torch.load reads with
    /// weights_only=True.
    Convert {
        /// A .pth or .safetensors file, or a run's folder for its newest checkpoint.
        file: PathBuf,
        /// The file to write.
        out: PathBuf,
        /// Only this network, under names without a prefix.
        #[arg(long, value_enum)]
        weights: Option<Which>,
    },
    /// Check that a file is intact, its numbers are finite, and its network is complete.
    Verify {
        /// A .pth or .safetensors file, or a run's folder for its newest checkpoint.
        file: PathBuf,
    },
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Inspect { file } => inspect(file),
        Command::Convert { file, out, weights } => {
            let file = files::open(file)?;
            note_skipped(&file);
            convert::convert(&file, out, weights.map(Which::network))?;
            print(&format!("{}: {}", out.display(), summary(&TensorFile::open(out)?)?))
        }
        Command::Verify { file } => verify(file),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Summarizes a file: its kind, the number of tensors of each type, and the digest of all tensors.
fn summary(file: &TensorFile) -> anyhow::Result<String> {
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    for info in file.tensors() {
        *types.entry(info.dtype.to_string()).or_default() += 1;
    }
    let types: Vec<String> = types.into_iter().map(|(name, n)| format!("{n} {name}")).collect();
    let numbers: usize = file.tensors().iter().map(|info| info.elements()).sum();
    let kind = if file.is_torch() { "PyTorch" } else { "safetensors" };
    Ok(format!(
        "{kind}, {}\n{} tensors ({}), {numbers} numbers, sha256 of all {}",
        identity::identify(file)?,
        file.tensors().len(),
        types.join(", "),
        file.digest()?
    ))
}

fn inspect(path: &Path) -> anyhow::Result<()> {
    let file = files::open(path)?;
    let mut text = format!("{}: {}", file.path().display(), summary(&file)?);
    for (at, class) in file.skipped() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\nskipped {at}: `{class}` was not executed");
    }
    for info in file.tensors() {
        let (crc, shape) = (crc32fast::hash(&file.data(info)?), format!("{:?}", info.shape));
        let dtype = info.dtype.to_string();
        let _ = write!(text, "\n{crc:08x}  {dtype:<4}  {shape:<18} {}", info.name);
    }
    print(&text)
}

fn note_skipped(file: &TensorFile) {
    if let Some(note) = file.skipped_note() {
        tell(&note);
    }
}

fn verify(path: &Path) -> anyhow::Result<()> {
    let file = files::open(path)?;
    note_skipped(&file);
    let verified = verify_file(&file)?;
    let network = match verified.known {
        true => "the network is complete",
        false => "not a network of this program, so names and shapes were not compared",
    };
    let checksums = if verified.checked { "checksums match" } else { "it holds no checksums" };
    let name = if verified.named { ", as in its name" } else { "" };
    print(&format!(
        "{}: {}\n{} tensors, {} numbers, all finite; {network}; {checksums}\nsha256 {}{name}",
        file.path().display(),
        verified.identity,
        file.tensors().len(),
        verified.numbers,
        verified.sha256
    ))
}
