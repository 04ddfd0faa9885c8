//! Mutation testing of the block emulator: edits kernels, one place at a time, rebuilds them and
//! runs the cases of `tests/emulator`, to see whether they notice.
//!
//!     cargo run --release -p emulator --bin mutate -- \
//!         [--edits source|nvcc] [--each N] [--count N] [--seed S] [--only FILE] [--out FILE]
//!
//! Every barrier is removed once. Of all other mutations, at most N per function (`--each`, 15) are
//! chosen by the seed. Mutants that do not compile are not counted. A mutant that no case notices
//! is a survivor, even if it does not change what the kernel computes.
//!
//! With `--edits nvcc`, the edits are of what only nvcc sees, and the cases are those of
//! `tests/ptx`, which executes the PTX. The seed chooses N (`--count`, 60) of them.

mod edits;
mod executed;
#[path = "../../../../build/nvcc.rs"]
mod nvcc;
mod nvcc_edits;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use edits::{BARRIER, Mutant};
use emulator::{Build, compile};

/// Mutants that run longer than this are assumed not to terminate.
const PATIENCE: Duration = Duration::from_secs(90);
/// Some of the tests' block sizes: not a multiple of a warp, two thread groups, and the maximum.
const BLOCK_SIZES: &str = "33,64,1024";
/// The kernels with which mutations of a header's functions are tested.
const USERS: [(&str, &[&str]); 11] = [
    ("simt.cuh", &["layernorm.cu", "finite.cu"]),
    ("warp.cuh", &["layernorm.cu", "finite.cu"]),
    ("group.cuh", &["layernorm.cu"]),
    ("upsample.cuh", &["cross_entropy.cu", "pseudo_label.cu", "resize.cu", "hrda.cu"]),
    ("pack.cuh", &["attention.cu", "depthwise.cu"]),
    ("columns.cuh", &["batchnorm.cu", "elementwise.cu"]),
    ("random.cuh", &["layernorm.cu", "channels.cu"]),
    ("color.cuh", &["mix.cu", "augment.cu"]),
    ("attention_tiles.cuh", &["attention.cu"]),
    ("attention_mma.cuh", &["attention_mma.cu", "attention_mma_backward.cu"]),
    ("counting.cuh", &["confusion.cu", "labels.cu"]),
];

struct Options {
    /// Edits of what only nvcc sees.
    nvcc: bool,
    each: usize,
    count: usize,
    seed: u64,
    only: Option<String>,
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Caught,
    Survived,
    DoesNotCompile,
}

fn main() -> Result<(), String> {
    let options = options()?;
    let tests = test_executable(if options.nvcc { "ptx" } else { "emulator" })?;
    let work = std::env::temp_dir().join(format!("mutants-{}", std::process::id()));
    let mutants = match options.nvcc {
        true => executed::drawn(&options, &work.join("draw"))?,
        false => drawn(&options)?,
    };
    eprintln!("{} edits", mutants.len());
    let try_one = if options.nvcc { executed::try_mutant } else { try_mutant };
    let (next, results) = (Mutex::new(mutants.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for worker in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            let (next, results, tests) = (&next, &results, &tests);
            let folder = work.join(worker.to_string());
            let take = move || next.lock().ok().and_then(|mut next| next.next());
            scope.spawn(move || {
                while let Some(mutant) = take() {
                    let outcome = try_one(&mutant, &folder, tests);
                    match &outcome {
                        Ok(Outcome::Survived) => eprintln!("survived: {}", mutant.describe()),
                        Err(problem) => eprintln!("{}: {problem}", mutant.describe()),
                        _ => (),
                    }
                    if let Ok(mut results) = results.lock() {
                        results.push((mutant, outcome));
                    }
                }
            });
        }
    });
    let _ = std::fs::remove_dir_all(&work);
    let mut results = results.into_inner().map_err(|e| e.to_string())?;
    results.sort_by(|(a, _), (b, _)| (&a.file, a.at, a.kind).cmp(&(&b.file, b.at, b.kind)));
    let text = report(&options, &results)?;
    print!("{text}");
    match options.out {
        Some(path) => std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display())),
        None => Ok(()),
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options { nvcc: false, each: 15, count: 60, seed: 1, only: None, out: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} takes a value"))?;
        let number = || value.parse::<u64>().map_err(|e| format!("{word} {value}: {e}"));
        match word.as_str() {
            "--edits" => match value.as_str() {
                "source" => options.nvcc = false,
                "nvcc" => options.nvcc = true,
                _ => return Err(format!("{word} {value}: neither source nor nvcc")),
            },
            "--each" => options.each = number()? as usize,
            "--count" => options.count = number()? as usize,
            "--seed" => options.seed = number()?,
            "--only" => options.only = Some(value),
            "--out" => options.out = Some(value.into()),
            _ => {
                return Err(format!(
                    "{word}: none of --edits, --each, --count, --seed, --only, --out"
                ));
            }
        }
    }
    Ok(options)
}

/// Builds the tests and returns the path of the executable, which cargo prints.
fn test_executable(test: &str) -> Result<PathBuf, String> {
    let output = Command::new("cargo")
        .args(["test", "--release", "--test", test, "--no-run"])
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.trim_start().starts_with("Executable"));
    let path = line.and_then(|line| line.rsplit_once('(')?.1.strip_suffix(')'));
    let path = path.ok_or_else(|| format!("cargo did not build the tests:\n{text}"))?;
    std::fs::canonicalize(path).map_err(|e| format!("{path}: {e}"))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn users(header: &str) -> &'static [&'static str] {
    USERS.iter().find(|(name, _)| *name == header).map_or(&[], |(_, users)| users)
}

/// Returns the removal of every barrier, and a random choice of the other mutations.
fn drawn(options: &Options) -> Result<Vec<Mutant>, String> {
    let folder = emulator::kernels();
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> = (entries.filter_map(Result::ok))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".cu") || !users(name).is_empty())
        .filter(|name| options.only.as_ref().is_none_or(|only| name == only))
        .collect();
    names.sort();
    let mut mutants = Vec::new();
    for name in names {
        for found in edits::of_file(&name, &read(&folder.join(&name))?) {
            let (barriers, mut rest): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|mutant| mutant.kind == BARRIER);
            mutants.extend(barriers);
            let mut random = options.seed;
            while rest.len() > options.each {
                random = hash(&format!("{random} {name} {}", rest[0].function));
                rest.remove((random % rest.len() as u64) as usize);
            }
            mutants.extend(rest);
        }
    }
    Ok(mutants)
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
}

/// Copies the kernels' sources to an empty folder.
fn copy_kernels(folder: &Path) -> Result<(), String> {
    let io = |e: std::io::Error| format!("{}: {e}", folder.display());
    let kernels = emulator::kernels();
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).map_err(io)?;
    for entry in std::fs::read_dir(&kernels).map_err(io)? {
        let entry = entry.map_err(io)?;
        std::fs::copy(entry.path(), folder.join(entry.file_name())).map_err(io)?;
    }
    Ok(())
}

/// Makes an edit in a copy of the sources.
fn write_mutant(mutant: &Mutant, folder: &Path) -> Result<(), String> {
    let text = read(&emulator::kernels().join(&mutant.file))?;
    let (before, rest) = text.split_at(mutant.at);
    let rest = rest.strip_prefix(&mutant.from).ok_or("the file has changed")?;
    let path = folder.join(&mutant.file);
    std::fs::write(&path, format!("{before}{}{rest}", mutant.to))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// Builds the kernels with the mutation and runs the cases that launch them.
fn try_mutant(mutant: &Mutant, folder: &Path, tests: &Path) -> Result<Outcome, String> {
    copy_kernels(folder)?;
    write_mutant(mutant, folder)?;
    let own = [mutant.file.as_str()];
    let files = if mutant.file.ends_with(".cu") { &own } else { users(&mutant.file) };
    for types in ["F64", "F32"] {
        let mut objects = vec![emulator::runtime()];
        for file in files {
            let object = folder.join(format!("{file}.{types}.o"));
            let source = folder.join(file);
            if compile::object(&source, folder, types, Build::Emulated, &object).is_err() {
                return Ok(Outcome::DoesNotCompile);
            }
            objects.push(object);
        }
        compile::link(&objects, &folder.join(format!("{types}.so")))?;
    }
    let child = Command::new(tests)
        .args(["--skip", "detect", "--skip", "tensor_cores", "--skip", "every_kernel_was_run"])
        .args(["--test-threads", "1"])
        .env("EMULATOR_LIBRARY", folder.join("{types}.so"))
        .env("EMULATOR_FILE", files.join(","))
        .env("EMULATOR_THREADS", BLOCK_SIZES)
        .env("EMULATOR_SEED", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", tests.display()))?;
    wait(child, PATIENCE)
}

/// Waits for the tests, which notice a mutant if they fail or do not end.
fn wait(mut child: Child, patience: Duration) -> Result<Outcome, String> {
    let start = Instant::now();
    loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) if status.success() => return Ok(Outcome::Survived),
            Some(_) => return Ok(Outcome::Caught),
            None if start.elapsed() > patience => {
                child.kill().and_then(|()| child.wait()).map_err(|e| e.to_string())?;
                return Ok(Outcome::Caught);
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn report(
    options: &Options,
    results: &[(Mutant, Result<Outcome, String>)],
) -> Result<String, String> {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut survivors = String::new();
    for (mutant, outcome) in results {
        let (caught, survived) = kinds.entry(mutant.kind).or_default();
        match outcome {
            Ok(Outcome::Caught) => *caught += 1,
            Ok(Outcome::Survived) => {
                *survived += 1;
                let _ = writeln!(survivors, "{}", mutant.describe());
            }
            Ok(Outcome::DoesNotCompile) => (),
            Err(problem) => return Err(format!("{}: {problem}", mutant.describe())),
        }
    }
    let Options { seed, each, .. } = options;
    let mut text = match options.nvcc {
        true => format!("Seed {seed}: {} edits of what only nvcc sees.\n\n", results.len()),
        false => {
            format!("Seed {seed}: every barrier, and up to {each} other edits a function.\n\n")
        }
    };
    let sum = |f: fn(&(usize, usize)) -> usize| kinds.values().map(f).sum::<usize>();
    let all = ("all", (sum(|k| k.0), sum(|k| k.1)));
    for (kind, (caught, survived)) in kinds.iter().map(|(k, v)| (*k, *v)).chain([all]) {
        let share = 100.0 * survived as f64 / (caught + survived).max(1) as f64;
        let _ = writeln!(text, "{kind:22} {caught:5} caught {survived:4} survived ({share:.1} %)");
    }
    let _ = write!(text, "\nSurvivors:\n{survivors}");
    Ok(text)
}
