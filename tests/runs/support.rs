//! Provides a toy world and a reference run, each created once, and helpers that read the files of
//! a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;
use udass_raw::config::Config;
use udass_raw::data::toy::ToyWorld;
use udass_raw::data::{layouts, prepare};

/// Iterations of the reference run; QuadMix starts at iteration `START`.
pub const ITERATIONS: u64 = 8;
pub const START: u64 = 4;

/// Every training feature at the smallest size: dropout, jitter and blur in every iteration, and a
/// threshold low enough that a random network's pseudo-labels count and are pasted.
const SETTINGS: &[&str] = &[
    "source.resize=[128, 70]",
    "target.resize=[128, 64]",
    "data.crop=64",
    "data.batch=2",
    "data.toy=",
    "rare_class_sampling.min_pixels=2",
    "network.channels=16",
    "network.hrda.detail_crop=32",
    "network.drop_path=0.3",
    "network.dropout=0.3",
    "teacher.ema_decay=0.9",
    // Smaller than usual, so that no detail crop is masked altogether: an untrained transformer sees
    // zeros there, and its layer norms multiply gradients without end.
    "mask.block=8",
    "pseudo_label.threshold=0.055",
    "pseudo_label.confident=0.055",
    "pseudo_label.margins=[2, 8, 2, 2]",
    "augment.jitter_prob=1.0",
    "augment.blur_prob=1.0",
    "quadmix.start=4",
    "quadmix.min_pixels=0",
    "quadmix.resize=[128, 64]",
    "schedule.warmup=2",
    "schedule.end=5000",
    "run.checkpoint_interval=4",
    "run.keep=1",
    "run.eval_interval=0",
    "eval.resize=[128, 64]",
    "eval.window=64",
    "eval.stride=32",
];

/// Returns a prepared toy world. The folder is reused between test runs, since writing the same
/// world again is cheap.
pub fn world() -> &'static Path {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs_world");
        let world = ToyWorld {
            source_size: (120, 66),
            target_size: (128, 64),
            source_train: 14,
            source_val: 1,
            target_train: 14,
            target_val: 4,
            ..ToyWorld::default()
        };
        if world.write(&folder, &()).is_err() {
            // The folder was left by another version.
            fs::remove_dir_all(&folder).unwrap();
            world.write(&folder, &()).unwrap();
        }
        for name in ["gta", "synthia", "cityscapes"] {
            let layout = layouts::find(name).unwrap();
            prepare::prepare(layout, &folder.join(name), false, &()).unwrap();
        }
        folder
    })
}

/// `key=value` for every setting, with the data in `world`.
pub fn settings_on(world: &Path) -> Vec<String> {
    let roots = [("source", "gta"), ("target", "cityscapes")];
    let roots = roots.map(|(key, name)| format!("{key}.root={}", world.join(name).display()));
    SETTINGS.iter().map(|set| set.to_string()).chain(roots).collect()
}

pub fn settings() -> Vec<String> {
    settings_on(world())
}

/// The configuration that [`command`] runs with.
pub fn config(more: &[&str]) -> Config {
    let sets: Vec<String> =
        settings().into_iter().chain(more.iter().map(|set| set.to_string())).collect();
    Config::load("toy_vit", &sets).unwrap()
}

/// `udass-raw COMMAND toy_vit` with the settings and `args`, in a folder without project files.
pub fn command_on(world: &Path, command: &str, args: &[&str]) -> Command {
    let mut child = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
    child.current_dir(env!("CARGO_TARGET_TMPDIR")).args([command, "toy_vit"]);
    for set in settings_on(world) {
        child.args(["--set", &set]);
    }
    child.args(args).stdin(Stdio::null());
    child
}

pub fn command(command: &str, args: &[&str]) -> Command {
    command_on(world(), command, args)
}

/// Runs `udass-raw WORDS` in a folder to completion.
pub fn run_in(folder: &Path, words: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
    child.current_dir(folder).args(words).stdin(Stdio::null()).output().unwrap()
}

/// Runs the command to completion.
pub fn run(name: &str, args: &[&str]) -> Output {
    command(name, args).output().unwrap()
}

/// Runs the command to completion; it must succeed.
pub fn succeed(name: &str, args: &[&str]) -> Output {
    let output = run(name, args);
    assert!(output.status.success(), "{name} {args:?}:\n{}", stderr(&output));
    output
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Returns the folder of a run of [`ITERATIONS`] iterations on one thread.
pub fn reference() -> &'static Path {
    static REFERENCE: OnceLock<PathBuf> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs_reference");
        if out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        let iterations = ITERATIONS.to_string();
        let sets = ["--set", "device.threads=1", "--set", "data.workers=1"];
        let evaluated = ["--set", "run.eval_interval=8"];
        let out_at = ["--max-iters", &iterations, "--out", text(&out)];
        succeed("train", &[&sets[..], &evaluated[..], &out_at[..]].concat());
        out
    })
}

pub fn checkpoint(out: &Path, iteration: u64) -> PathBuf {
    out.join("checkpoints").join(format!("iteration_{iteration:06}.safetensors"))
}

pub fn reference_checkpoint() -> PathBuf {
    checkpoint(reference(), ITERATIONS)
}

/// The tensors of a safetensors file by name, and its metadata strings.
#[derive(Clone, PartialEq)]
pub struct Contents {
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    pub strings: BTreeMap<String, String>,
}

impl Contents {
    pub fn of(path: &Path) -> Contents {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        });
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let mut strings = header.metadata().clone().unwrap_or_default();
        // What is written again with other content must not keep its checksums.
        strings.remove("crc32");
        Contents { tensors: tensors.collect(), strings: strings.into_iter().collect() }
    }

    pub fn write(&self, path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let strings =
            (!self.strings.is_empty()).then(|| self.strings.clone().into_iter().collect());
        fs::write(path, safetensors::serialize(views, strings).unwrap()).unwrap();
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        let (dtype, _, bytes) = &self.tensors[name];
        assert_eq!(*dtype, Dtype::F32, "{name}");
        bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    /// Puts a number into a tensor of single precision.
    pub fn put(&mut self, name: &str, at: usize, number: f32) {
        let (dtype, _, bytes) = self.tensors.get_mut(name).unwrap();
        assert_eq!(*dtype, Dtype::F32, "{name}");
        bytes[4 * at..4 * at + 4].copy_from_slice(&number.to_le_bytes());
    }

    /// Lists the first few tensors that are not bit-identical.
    fn differences(&self, other: &Contents) -> Vec<String> {
        let mut names: Vec<&String> = self.tensors.keys().chain(other.tensors.keys()).collect();
        names.sort();
        names.dedup();
        let differs = |name: &&&String| self.tensors.get(**name) != other.tensors.get(**name);
        names.iter().filter(differs).take(5).map(|name| name.to_string()).collect()
    }
}

/// Asserts that two states are bit-identical: every tensor, and the position in the run.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (Contents::of(a), Contents::of(b));
    assert!(a.tensors.len() > 400, "{} tensors are no checkpoint", a.tensors.len());
    assert_eq!(a.differences(&b), [""; 0]);
    for key in ["iteration", "templates.iteration", "version"] {
        assert_eq!(a.strings[key], b.strings[key], "{key}");
    }
}

/// Asserts that the command fails with a single error message that contains all of `parts`.
#[track_caller]
pub fn refused(output: &Output, parts: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    assert_eq!(told.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{told}");
    let (_, error) = told.split_once("error: ").unwrap();
    for part in parts {
        assert!(error.contains(part), "{part:?} in:\n{told}");
    }
}

/// Returns the log's lines of one event kind.
pub fn events(out: &Path, event: &str) -> Vec<Value> {
    let lines = udass_raw::run::train::log::read(out.join("log.jsonl")).unwrap_or_default();
    lines.into_iter().filter(|line| line["event"] == event).collect()
}

/// Waits until `ready` returns true; panics if `child` exits first.
#[track_caller]
pub fn wait_for(child: &mut Child, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited too long");
        if let Some(status) = child.try_wait().unwrap() {
            assert!(ready(), "ended before its time: {status}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Copies a folder recursively.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
