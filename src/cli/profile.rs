//! `udass-raw profile`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use udass_raw::device::Device;
use udass_raw::run::profile::kernel::{
    Caches, Kernel, Measurement, Measurements, Sampling, listing,
};
use udass_raw::run::profile::model::Model;
use udass_raw::run::profile::{Predicted, Rates};
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
  udass-raw profile gta_vit --dry --device-model h200
  udass-raw profile gta_vit --dry --memory-rate 3.35e12 --matrix-rate 400e12
  udass-raw profile gta_vit --list
  udass-raw profile gta_vit --kernel attention_forward --shape 4x16384x64
  udass-raw profile gta_vit --kernel layernorm_forward --shape all --csv layernorm.csv
  udass-raw profile gta_vit --kernel add --axis data.crop=512,1024 --axis data.batch=1,2 --markdown -
  udass-raw profile gta_vit --kernel add --against my_add.cu
  ncu --set full -k regex:add -c 1 udass-raw profile gta_vit --kernel add --once")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,

    /// Number of iterations to profile; the fastest is reported.
    #[arg(long, value_name = "N", default_value_t = 3)]
    samples: usize,

    /// Maximum rows in the tables by kernel, by size and by layer.
    #[arg(long, value_name = "N", default_value_t = 24)]
    rows: usize,

    /// Also write the whole profile, including every call, to this file; with --kernel, its numbers
    /// with every sample. With `-`, write it to standard output, and the tables to standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also write a trace for chrome://tracing or ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Also write an HTML page with a flame chart, a roofline plot and all tables.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Run nothing: count calls, bytes, FLOPs and memory, and predict times for a --device-model, or
    /// lower bounds from --memory-rate and --matrix-rate.
    #[arg(long, requires = "predicted_for", conflicts_with = "kernel")]
    dry: bool,

    /// GPU whose times --dry expects: a100, h100, h200 or rtx4090.
    #[arg(long, value_name = "GPU", requires = "dry", group = "predicted_for")]
    #[arg(conflicts_with_all = ["memory_rate", "matrix_rate"])]
    device_model: Option<String>,

    /// Memory bandwidth in bytes per second, for --dry.
    #[arg(long, value_name = "B/S", value_parser = rate, requires_all = ["dry", "matrix_rate"])]
    #[arg(group = "predicted_for")]
    memory_rate: Option<f64>,

    /// FLOPs per second of matmuls, for --dry.
    #[arg(long, value_name = "FLOP/S", value_parser = rate, requires_all = ["dry", "memory_rate"])]
    matrix_rate: Option<f64>,

    /// List the kernels that an iteration launches, with their shapes.
    #[arg(long, conflicts_with_all = ["kernel", "trace", "html", "dry"])]
    list: bool,

    /// Time only this kernel, as an iteration launches it. Its bound is the time that its bytes take
    /// at the memory's bandwidth, or its FLOPs at the rate of a large matmul.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["trace", "html"])]
    kernel: Option<String>,

    /// Time the launch of --kernel whose largest tensor has this shape, as in 2x64x64x256, or one of
    /// each shape with `all`. [default: the launch that moves the most bytes]
    #[arg(long, value_name = "SHAPE", requires = "kernel")]
    shape: Option<String>,

    /// Time the kernel for each value of a key of the configuration, on which sizes depend; may be
    /// repeated for every combination of values.
    #[arg(long, value_name = "KEY=A,B,…", requires = "kernel", value_parser = axis)]
    axis: Vec<(String, Vec<String>)>,

    /// Also time this file's version of --kernel, in turns, and compare the results. It has a
    /// KERNEL(NAME, …) with the same types, may include the headers in kernels/, and is compiled by
    /// NVRTC for a GPU and by $CXX (c++) for the CPU. Its code runs in this process.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    against: Option<PathBuf>,

    /// Leave the kernel's tensors in the caches. By default, each launch has tensors of its own, and
    /// all of them fill the last cache four times before any is used again.
    #[arg(long, requires = "kernel")]
    hot: bool,

    /// Least number of times to run --kernel.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "kernel")]
    repeats: usize,

    /// Run --kernel until the standard deviation of its times is at most this share of their mean …
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, requires = "kernel")]
    #[arg(value_parser = rate)]
    max_noise: f64,

    /// … or until this many seconds have passed.
    #[arg(long, value_name = "S", default_value_t = 3.0, requires = "kernel", value_parser = rate)]
    seconds: f64,

    /// Launch --kernel once, without warming up, and measure nothing: for use under ncu.
    #[arg(long, requires = "kernel")]
    #[arg(conflicts_with_all = ["json", "csv", "markdown", "axis", "against", "hot"])]
    once: bool,

    /// Also write the numbers of --kernel to this file, a line for each launch.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    csv: Option<PathBuf>,

    /// Also write the numbers of --kernel to this file as a Markdown table.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    markdown: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|&rate: &f64| rate.is_finite() && rate > 0.0);
    number.ok_or_else(|| "expected a number above 0, as in 3.35e12".into())
}

/// Parses `KEY=A,B`.
fn axis(text: &str) -> Result<(String, Vec<String>), String> {
    let (key, values) = text.split_once('=').ok_or("expected KEY=A,B, as in data.crop=512,1024")?;
    let values: Vec<String> = values.split(',').map(|value| value.trim().into()).collect();
    match key.contains('.') && values.iter().all(|value| !value.is_empty()) {
        true => Ok((key.into(), values)),
        false => Err("expected KEY=A,B, as in data.crop=512,1024".into()),
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.kernel {
        return kernel(args, name);
    }
    let config = args.configured.load()?;
    if args.list {
        print(&listing(&Kernel::list(&config)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = &args.configured.config;
    let measured = match (&args.device_model, args.memory_rate, args.matrix_rate) {
        (Some(machine), ..) => {
            let model = Model::new(machine, build::precision(&config)?)?;
            profile::predict(&config, name, Predicted::Expected(&model))?
        }
        (_, Some(memory), Some(matrix)) => {
            let rates = Rates { memory, matrix };
            profile::predict(&config, name, Predicted::Bound(rates))?
        }
        _ => profile::measure(&build::device(&config)?, &config, name, args.samples)?,
    };
    match args.json.as_deref().is_some_and(is_standard) {
        true => tell(&measured.terminal(args.rows)),
        false => print(&measured.terminal(args.rows))?,
    }
    wanted(&args.json, &|| format!("{:#}\n", measured.to_json()))?;
    wanted(&args.trace, &|| format!("{}\n", measured.trace()))?;
    wanted(&args.html, &|| measured.html())?;
    Ok(ExitCode::SUCCESS)
}

fn wanted(path: &Option<PathBuf>, text: &dyn Fn() -> String) -> anyhow::Result<()> {
    path.as_ref().map_or(Ok(()), |path| write(path, &text()))
}

/// Measures a kernel alone.
fn kernel(args: &Args, name: &str) -> anyhow::Result<ExitCode> {
    let sampling = Sampling {
        caches: if args.hot { Caches::Hot } else { Caches::Cold },
        least: args.repeats,
        max_noise: args.max_noise,
        time: Duration::try_from_secs_f64(args.seconds)?,
    };
    let mut all = Measurements::default();
    let mut opened: Option<(String, Device, Option<Rates>)> = None;
    for axes in combinations(&args.axis) {
        let sets = axes.iter().map(|(key, value)| format!("{key}={value}"));
        let config = args.configured.load_until(None, sets)?;
        let kernels = match args.shape.as_deref() {
            Some("all") => Kernel::all(&config, name)?,
            shape => vec![Kernel::find(&config, name, shape)?],
        };
        // Most axes leave the device as it is.
        let settings = format!("{:?}", config.device);
        let (_, device, rates) = match &mut opened {
            Some(opened) if opened.0 == settings => opened,
            other => other.insert((settings, build::device(&config)?, None)),
        };
        for kernel in kernels {
            if args.once {
                kernel.once(device)?;
                continue;
            }
            let (timing, against) = match &args.against {
                None => (kernel.time(device, sampling)?, None),
                // SAFETY: the user asks for this file's code to run, and the help says that it
                // does so in this process.
                Some(file) => unsafe {
                    let (own, other) = kernel.time_against(device, file, sampling)?;
                    (own, Some(other))
                },
            };
            // After the kernel, whose file may not compile.
            let rates = match *rates {
                Some(known) => known,
                None => *rates.insert(Rates::measure(device)?),
            };
            let (axes, caches) = (axes.clone(), sampling.caches);
            all.0.push(Measurement { axes, kernel, timing, caches, rates, against });
        }
    }
    if args.once {
        return Ok(ExitCode::SUCCESS);
    }
    let files = [&args.json, &args.csv, &args.markdown];
    match files.into_iter().flatten().any(|path| is_standard(path)) {
        true => tell(&all.terminal()),
        false => print(&all.terminal())?,
    }
    wanted(&args.json, &|| format!("{:#}\n", all.to_json()))?;
    wanted(&args.csv, &|| all.csv())?;
    wanted(&args.markdown, &|| all.markdown())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns every combination of the axes' values, the last axis varying fastest.
fn combinations(axes: &[(String, Vec<String>)]) -> Vec<Vec<(String, String)>> {
    axes.iter().fold(vec![Vec::new()], |before, (key, values)| {
        let with = |one: &Vec<(String, String)>, value: &String| {
            one.iter().cloned().chain([(key.clone(), value.clone())]).collect()
        };
        before.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_combined() {
        let axes = ["a.b=1,2", "c.d=x"].map(|text| axis(text).unwrap());
        let pair =
            |a: &str, c: &str| vec![("a.b".to_string(), a.to_string()), ("c.d".into(), c.into())];
        assert_eq!(combinations(&axes), [pair("1", "x"), pair("2", "x")]);
        assert_eq!(combinations(&[]), [vec![]]);
        assert!(axis("crop=1").is_err() && axis("a.b=1,").is_err() && axis("a.b").is_err());
    }
}
