//! `udass-raw profile`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::checkpoint::atomic::write_atomic;
use udass_raw::run::{build, profile};

use super::configured::Configured;
use super::output::print;

/// Tell where an iteration spends its time.
///
/// Runs training iterations on made-up batches and prints calls, time, bytes, FLOPs and their rates,
/// and the share of what the device can do at best: by pass, by stage of the network, by kernel, by
/// kernel and size, and by layer. No data set is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw profile toy_vit
  udass-raw profile gta_vit --method mic --html profile.html --trace trace.json
  udass-raw profile gta_vit --dry --memory-rate 3.35e12 --matrix-rate 400e12
  udass-raw profile gta_vit --kernel attention_forward --shape 4x16384x64")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,

    /// Profiled iterations; the fastest is told.
    #[arg(long, value_name = "N", default_value_t = 3)]
    samples: usize,

    /// Rows of kernels, of sizes and of layers.
    #[arg(long, value_name = "N", default_value_t = 24)]
    rows: usize,

    /// Write all of it, every call included, to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a trace for chrome://tracing or ui.perfetto.dev as well.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Write a page with a flame chart, a roofline plot and all tables as well.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Run nothing: count calls, bytes, FLOPs and memory, and predict times from the two rates.
    #[arg(long, requires_all = ["memory_rate", "matrix_rate"], conflicts_with = "kernel")]
    dry: bool,

    /// Bytes per second that memory gives and takes, for --dry.
    #[arg(long, value_name = "B/S", value_parser = rate, requires = "dry")]
    memory_rate: Option<f64>,

    /// FLOPs per second of matrix products, for --dry.
    #[arg(long, value_name = "FLOP/S", value_parser = rate, requires = "dry")]
    matrix_rate: Option<f64>,

    /// Run this kernel alone, as an iteration launches it: for a profiler that counts within one.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["json", "trace", "html"])]
    kernel: Option<String>,

    /// Of --kernel's launches those whose largest tensor is of this shape, as in 2x64x64x256; without
    /// it, those with the most bytes.
    #[arg(long, value_name = "SHAPE", requires = "kernel")]
    shape: Option<String>,

    /// Times that --kernel runs.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "kernel")]
    repeats: usize,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|&rate: &f64| rate.is_finite() && rate > 0.0);
    number.ok_or_else(|| "expected a number above 0, as in 3.35e12".into())
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.configured.load([])?;
    if let Some(kernel) = &args.kernel {
        let kernel = profile::Kernel::find(&config, kernel, args.shape.as_deref())?;
        let device = build::device(&config)?;
        let rates = profile::Rates::measure(&device)?;
        let samples = kernel.run(&device, args.repeats.max(1))?;
        print(&kernel.describe(&rates, &samples))?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = &args.configured.config;
    let measured = match (args.memory_rate, args.matrix_rate) {
        (Some(memory), Some(matrix)) => {
            profile::predict(&config, name, profile::Rates { memory, matrix })?
        }
        _ => profile::measure(&build::device(&config)?, &config, name, args.samples)?,
    };
    print(&measured.terminal(args.rows))?;
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        Some(path) => write_atomic(path, |file| file.write_all(text().as_bytes())),
        None => Ok(()),
    };
    write(&args.json, &|| format!("{:#}\n", measured.to_json()))?;
    write(&args.trace, &|| format!("{}\n", measured.trace()))?;
    write(&args.html, &|| measured.html())?;
    Ok(ExitCode::SUCCESS)
}
