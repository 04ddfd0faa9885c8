//! Shared by the benches: runs cases under criterion or in a plain loop, and writes the record of a
//! run.
//!
//! Under `cargo bench`, criterion measures and reports; next to its own files, this module writes a
//! record with every sample, the machine and the commit. With `--samples N` criterion is bypassed:
//! each case runs N timed samples after `--warmup W` runs, so that two programs can take turns on
//! one machine. For short cases a sample is the mean of many runs.
//!
//!   --samples N --warmup W --seconds S --case NAME --record FILE
//!               (NAME is a full name or part of one; S limits the seconds of a case's samples)
//!   --cases     (prints the cases and their options)
//!
//! Environment: UDASS_DEVICE is host or cuda, UDASS_PRECISION is f32, tf32 or bf16, UDASS_THREADS
//! is the number of worker threads (default: all cores), UDASS_RECORD is the record's path
//! (default: benches/results/<date>-<what>.json), and UDASS_COMMIT names the built commit if there
//! is no repository. `udass-raw profile` reports where an iteration spends its time.

#[path = "ceiling.rs"]
mod ceiling;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use criterion::{Criterion, SamplingMode, Throughput};
use serde_json::{Map, Value, json};
use udass_raw::device::profile::{Call, Profile};
use udass_raw::device::{Device, Precision, join_workers};

/// Number of samples that criterion takes of each case.
const SAMPLES: usize = 10;
/// Minimum length of a sample: clock resolution and scheduling add too much noise to shorter ones.
const SAMPLE_SECONDS: f64 = 0.02;
/// FLOPs per byte above which a case counts as compute-bound.
const MANY: f64 = 10.0;

/// One run of a case.
pub type Run = Box<dyn FnMut()>;

/// The work that one run of a case does, as its calls declare it.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The minimum of bytes read and written.
    pub bytes: f64,
    /// Multiplications and additions.
    pub flops: f64,
}

pub struct Case {
    pub name: String,
    /// Written to the record next to the samples.
    pub options: Map<String, Value>,
    /// Counts the work, on a device that computes nothing.
    pub work: Box<dyn Fn() -> Work>,
    /// Number of runs until all of the case's memory has been touched.
    pub warmup: usize,
    /// Allocates what the case needs; it is freed before the next case.
    pub setup: Box<dyn Fn() -> Run>,
}

/// The timings of one case.
#[derive(Default)]
struct Samples {
    seconds: Vec<f64>,
    /// Cores that other processes kept busy meanwhile; `None` if a sample is too short to tell.
    others: Vec<Option<f64>>,
    /// CPU time of all threads, which a busy machine distorts less. `None` if the system does not
    /// report it.
    cpu: Vec<Option<f64>>,
    /// Number of runs that a sample averages over.
    runs: usize,
}

/// How cases are sampled.
struct Sampling {
    samples: usize,
    warmup: usize,
    /// Sampling stops once a case has run for this long.
    seconds: f64,
}

/// Worker threads from UDASS_THREADS; 0 means all cores.
pub fn threads() -> usize {
    std::env::var("UDASS_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The device that UDASS_DEVICE and UDASS_PRECISION select; by default the host in single
/// precision.
pub fn device() -> Device {
    match on_gpu() {
        true => Device::cuda(precision(), true).unwrap(),
        false => {
            // As the program's commands do. A second call finds the threads there.
            let _ = join_workers(threads());
            Device::host_in(threads(), precision()).unwrap()
        }
    }
}

pub fn precision() -> Precision {
    match std::env::var("UDASS_PRECISION").as_deref() {
        Ok("tf32") => Precision::Tf32,
        Ok("bf16") => Precision::Bf16,
        _ => Precision::F32,
    }
}

pub fn on_gpu() -> bool {
    std::env::var("UDASS_DEVICE").is_ok_and(|device| device == "cuda")
}

/// Runs the cases as the command line requests, then writes the record.
pub fn main(what: &str, device: &Device, mut cases: Vec<Case>) {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--cases") {
        let all: Map<String, Value> =
            cases.into_iter().map(|case| (case.name, Value::Object(case.options))).collect();
        return println!("{}", Value::Object(all));
    }
    let value = |name: &str| {
        let place = args.iter().position(|arg| arg == name)?;
        args.get(place + 1).cloned()
    };
    let number = |name: &str| -> Option<f64> {
        value(name).map(|n| n.parse().unwrap_or_else(|_| panic!("{name} {n}: not a number")))
    };
    let count = |name: &str| number(name).map(|n| n as usize);
    let record = value("--record").or(std::env::var("UDASS_RECORD").ok());
    let record = record.map_or_else(|| default_path(what), PathBuf::from);
    let results = match count("--samples") {
        Some(samples) => {
            let wanted = value("--case").unwrap_or_default();
            let exact = cases.iter().any(|case| case.name == wanted);
            cases.retain(|case| match exact {
                true => case.name == wanted,
                false => case.name.contains(&wanted),
            });
            let warmup = count("--warmup").unwrap_or(1);
            let seconds = number("--seconds").unwrap_or(f64::INFINITY);
            plain(device, &cases, &Sampling { samples, warmup, seconds })
        }
        None => with_criterion(device, cases),
    };
    // There are no results when criterion only tested or listed the cases.
    if !results.is_empty() {
        write(&record, device, what, results);
    }
}

fn plain(device: &Device, cases: &[Case], how: &Sampling) -> Vec<Value> {
    let mut results = Vec::new();
    for case in cases {
        let (mut run, mut taken) = warmed(device, case, how);
        device.reset_peak_memory();
        let begin = Instant::now();
        for i in 0..how.samples {
            if i > 0 && begin.elapsed().as_secs_f64() > how.seconds {
                break;
            }
            let (busy, cpu, start) = (busy_elsewhere(), cpu_used(), Instant::now());
            (0..taken.runs).for_each(|_| run());
            device.synchronize().unwrap();
            taken.push(start.elapsed().as_secs_f64(), busy, cpu);
        }
        if taken.seconds.is_empty() {
            continue;
        }
        let work = (case.work)();
        println!(
            "{}: median {:.3} ms, min {:.3} ms{}",
            case.name,
            taken.median() * 1e3,
            taken.least() * 1e3,
            work.rate(taken.median()),
        );
        let mut result = result(case, work, &taken);
        result["peak_bytes"] = json!(device.memory().peak);
        results.push(result);
    }
    results
}

/// Warms up a case, and chooses how many runs a sample takes.
fn warmed(device: &Device, case: &Case, how: &Sampling) -> (Run, Samples) {
    let mut run = (case.setup)();
    let (begin, mut last) = (Instant::now(), 0.0);
    for i in 0..how.warmup.max(case.warmup).max(1) {
        // A slow case stops early: it spends little of its time on first touches of memory.
        if i >= how.warmup.max(1) && begin.elapsed().as_secs_f64() > how.seconds {
            break;
        }
        let start = Instant::now();
        run();
        device.synchronize().unwrap();
        last = start.elapsed().as_secs_f64();
    }
    let runs = ((SAMPLE_SECONDS / last.max(1e-9)).ceil() as usize).max(1);
    (run, Samples { runs, ..Samples::default() })
}

fn with_criterion(device: &Device, cases: Vec<Case>) -> Vec<Value> {
    let mut criterion = Criterion::default().sample_size(SAMPLES).configure_from_args();
    let mut results = Vec::new();
    for case in cases {
        let (group, function) = case.name.split_once('/').unwrap_or(("step", &case.name));
        let mut group = criterion.benchmark_group(group);
        group.sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_secs(1));
        let work = (case.work)();
        group.throughput(match work.flops > MANY * work.bytes {
            true => Throughput::Elements(work.flops as u64),
            false => Throughput::Bytes(work.bytes as u64),
        });
        let taken = Rc::new(RefCell::new(Samples { runs: 1, ..Samples::default() }));
        let mut run = None;
        group.bench_function(function, |bencher| {
            let run = run.get_or_insert_with(|| (case.setup)());
            bencher.iter_custom(|count| {
                let (busy, cpu, start) = (busy_elsewhere(), cpu_used(), Instant::now());
                (0..count).for_each(|_| run());
                device.synchronize().unwrap();
                let elapsed = start.elapsed();
                let mut taken = taken.borrow_mut();
                taken.runs = count as usize;
                taken.push(elapsed.as_secs_f64(), busy, cpu);
                elapsed
            });
        });
        group.finish();
        // The first calls were criterion's warm-up. In its test mode, there is a single call.
        let mut taken = taken.take();
        if let Some(first) = taken.seconds.len().checked_sub(SAMPLES) {
            taken.seconds.drain(..first);
            taken.others.drain(..first);
            taken.cpu.drain(..first);
            results.push(result(&case, work, &taken));
        }
    }
    criterion.final_summary();
    results
}

impl Samples {
    /// Adds a sample: `seconds` is the time of all its runs, the others are the counters before it.
    fn push(&mut self, seconds: f64, busy_before: Option<f64>, cpu_before: Option<f64>) {
        let cpu = cpu_before.zip(cpu_used());
        self.cpu.push(cpu.map(|(before, after)| (after - before) / self.runs as f64));
        // The system counts in ticks of 10 ms, too coarse for shorter samples.
        let busy = busy_before.filter(|_| seconds > 0.1).zip(busy_elsewhere());
        self.seconds.push(seconds / self.runs as f64);
        self.others.push(busy.map(|(before, after)| (after - before).max(0.0) / seconds));
    }

    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        }
    }

    fn least(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl Work {
    /// Sums the work of a profile's calls.
    pub fn of(profile: &Profile) -> Work {
        let sum = |of: fn(&Call) -> f64| profile.calls.iter().map(of).sum();
        Work { bytes: sum(|call| call.bytes), flops: sum(|call| call.flops) }
    }

    fn rate(self, seconds: f64) -> String {
        let arithmetic = match self.flops > 0.0 {
            true => format!(", {:.4} TFLOP/s", self.flops / seconds * 1e-12),
            false => String::new(),
        };
        format!(", {:.2} GB/s{arithmetic}", self.bytes / seconds * 1e-9)
    }
}

fn result(case: &Case, work: Work, samples: &Samples) -> Value {
    let mut fields = case.options.clone();
    fields.insert("name".into(), json!(case.name));
    fields.insert("samples_seconds".into(), json!(samples.seconds));
    fields.insert("median".into(), json!(samples.median()));
    fields.insert("min".into(), json!(samples.least()));
    fields.insert("cpu_seconds".into(), json!(samples.cpu));
    fields.insert("cores_busy_elsewhere".into(), json!(samples.others));
    fields.insert("runs_per_sample".into(), json!(samples.runs));
    fields.insert("bytes".into(), json!(work.bytes));
    fields.insert("flops".into(), json!(work.flops));
    Value::Object(fields)
}

fn write(path: &Path, device: &Device, what: &str, results: Vec<Value>) {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = if threads() == 0 { cores } else { threads() };
    let record = json!({
        "implementation": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "what": what,
        "date": date(),
        "commit": commit(),
        "compiler": output("rustc", &["--version"]),
        "cpu": cpu(),
        "cores": cores,
        "threads": threads,
        "device": device.describe(),
        "load_average": first_line("/proc/loadavg"),
        "ceiling": ceiling::measure(device, (!on_gpu()).then_some(threads)),
        "results": results,
    });
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(path, format!("{record:#}\n")).unwrap();
    println!("record with all samples: {}", path.display());
}

fn default_path(what: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    folder.join(format!("{}-{what}.json", date()))
}

/// Today's date in UTC, as YYYY-MM-DD.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    // A year that begins in March has the leap day last (Hinnant, "chrono-compatible low-level date
    // algorithms").
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

fn commit() -> Option<String> {
    if let Ok(built) = std::env::var("UDASS_COMMIT") {
        return Some(built);
    }
    let head = output("git", &["rev-parse", "HEAD"])?;
    let changed = output("git", &["status", "--porcelain", "--", "src", "kernels", "build"])?;
    Some(if changed.is_empty() { head } else { head + "-dirty" })
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(program).args(args).current_dir(folder).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().into())
}

fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.trim() == name).map(|(_, value)| value.trim())
    };
    let name = field("model name")?;
    // Cloud machines name processors of several generations alike.
    Some(match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name.into(),
    })
}

fn first_line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()?.lines().next().map(str::to_string)
}

/// Returns the CPU seconds that this process's threads have used; `None` if the system does not
/// report them.
fn cpu_used() -> Option<f64> {
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    {
        unsafe extern "C" {
            fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
        }
        const PROCESS: i32 = 2;
        let mut time = [0; 2];
        // SAFETY: matches the C library's declaration; `time` has room for the seconds and
        // nanoseconds that it writes.
        let known = unsafe { clock_gettime(PROCESS, &mut time) } == 0;
        known.then(|| time[0] as f64 + time[1] as f64 * 1e-9)
    }
    #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
    None
}

/// Returns the CPU seconds that other processes have used since boot; `None` if the system does not
/// report them.
fn busy_elsewhere() -> Option<f64> {
    const TICKS: f64 = 100.0;
    let all = first_line("/proc/stat")?;
    let all: Vec<f64> = all.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let own = first_line("/proc/self/stat")?;
    // Counts the fields after the process name, which may contain spaces: 11 and 12 are the user
    // and system times.
    let own: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
    let own: f64 = own.get(11)?.parse::<f64>().ok()? + own.get(12)?.parse::<f64>().ok()?;
    let [user, nice, system, _, _, irq, softirq, ..] = all[..] else { return None };
    Some((user + nice + system + irq + softirq - own) / TICKS)
}
