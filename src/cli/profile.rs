//! `udass-raw profile`

use std::path::PathBuf;
use std::process::ExitCode;

use udass_raw::run::{build, profile};

use super::configured::Configured;
use super::output::{is_standard, print, tell, write};

/// Show where an iteration spends its time.
///
/// Runs training iterations on synthetic batches and prints calls, time, bytes, FLOPs and their
/// rates, and the share of the device's peak: by pass, by stage of the network, by kernel, by
/// kernel and size, and by layer. No dataset is needed.
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

    /// Number of iterations to profile; the fastest is reported.
    #[arg(long, value_name = "N", default_value_t = 3)]
    samples: usize,

    /// Maximum rows in the tables by kernel, by size and by layer.
    #[arg(long, value_name = "N", default_value_t = 24)]
    rows: usize,

    /// Also write the whole profile, including every call, to this file. With `-`, write it to
    /// standard output, and the tables to standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also write a trace for chrome://tracing or ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Also write an HTML page with a flame chart, a roofline plot and all tables.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Run nothing: count calls, bytes, FLOPs and memory, and predict times from the two rates.
    #[arg(long, requires_all = ["memory_rate", "matrix_rate"], conflicts_with = "kernel")]
    dry: bool,

    /// Memory bandwidth in bytes per second, for --dry.
    #[arg(long, value_name = "B/S", value_parser = rate, requires = "dry")]
    memory_rate: Option<f64>,

    /// FLOPs per second of matmuls, for --dry.
    #[arg(long, value_name = "FLOP/S", value_parser = rate, requires = "dry")]
    matrix_rate: Option<f64>,

    /// Run only this kernel, as an iteration launches it, for use under a kernel profiler.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["json", "trace", "html"])]
    kernel: Option<String>,

    /// Run the launch of --kernel whose largest tensor has this shape, as in 2x64x64x256; by
    /// default, the launch that moves the most bytes.
    #[arg(long, value_name = "SHAPE", requires = "kernel")]
    shape: Option<String>,

    /// How many times to run --kernel.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "kernel")]
    repeats: usize,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|&rate: &f64| rate.is_finite() && rate > 0.0);
    number.ok_or_else(|| "expected a number above 0, as in 3.35e12".into())
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.configured.load()?;
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
    match args.json.as_deref().is_some_and(is_standard) {
        true => tell(&measured.terminal(args.rows)),
        false => print(&measured.terminal(args.rows))?,
    }
    let wanted = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        Some(path) => write(path, &text()),
        None => Ok(()),
    };
    wanted(&args.json, &|| format!("{:#}\n", measured.to_json()))?;
    wanted(&args.trace, &|| format!("{}\n", measured.trace()))?;
    wanted(&args.html, &|| measured.html())?;
    Ok(ExitCode::SUCCESS)
}
