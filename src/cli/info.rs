//! `udass-raw info`

use std::process::ExitCode;

use udass_raw::device::{Device, cuda, processor};

use super::output::print;

/// Print what a bug report needs.
///
/// Version and commit, processor and instruction set, GPUs, driver and CUDA libraries with versions
/// and paths, and the caches with their sizes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw info > info.txt")]
pub struct Args {}

pub fn run(_: &Args) -> anyhow::Result<ExitCode> {
    let mut lines = vec![
        ("udass-raw".into(), format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("UDASS_COMMIT"))),
        ("processor".to_string(), processor()),
        ("host device".into(), Device::host(0)?.describe()),
    ];
    lines.extend(cuda::inventory());
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    for (label, text) in lines {
        print(&format!("{label:<width$}  {text}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
