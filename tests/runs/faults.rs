//! Tests what every command that writes does when a step of it fails or kills it: an error names the
//! file, nothing that was there is lost or half replaced, and the next try completes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use udass_raw::checkpoint::tensor_file::TensorFile;

use crate::support::{command, copy_folder, folder, reference_checkpoint, stderr, text, world};

/// Builds fault.c as a library.
pub fn fault_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runs/fault.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fault.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-o", text(&library), text(&source)]);
        assert!(command.status().unwrap().success(), "{command:?}");
        library
    })
}

/// A command that writes into a folder.
struct Writer {
    /// What the folder holds before.
    before: fn(&Path),
    command: fn(&Path) -> Command,
    /// The command that is run after a failure.
    again: fn(&Path) -> Command,
    /// The largest number of steps that are tried.
    most: usize,
}

/// Returns the first step of each kind: what it does to which file, but for the numbers in its name.
fn of_each_kind(steps: &str) -> Vec<(usize, &str)> {
    let mut kinds = BTreeSet::new();
    let kind = |step: &str| -> String {
        let end = step.rfind('/').map_or(step, |at| &step[at..]);
        let action = step.split(' ').next().unwrap();
        action.chars().chain(end.chars().filter(|c| !c.is_ascii_digit())).collect()
    };
    steps.lines().enumerate().filter(|(_, step)| kinds.insert(kind(step))).collect()
}

/// Whether a file is one that a command that failed may leave: a checkpoint before the last one, or
/// the mark of a world that is not complete.
fn may_be_left(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    let whole = || TensorFile::open(path).is_ok_and(|file| file.has_checksums());
    name.contains("unfinished") || name.starts_with("iteration_") && whole()
}

/// Whether a file is one for TensorBoard, which has the time in its name. tests/runs/tensorboard.rs
/// tests those.
fn is_event_file(name: &str) -> bool {
    name.contains(".tfevents.")
}

/// The files below a folder; none of temporary files, locks and event files, and of logs and
/// evaluations, which hold times, only that they are there.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                open.push(path);
            } else if !name.starts_with('.') && name != "log.jsonl.old" && !is_event_file(name) {
                let timed = name.contains(".json");
                let bytes = if timed { Vec::new() } else { fs::read(&path).unwrap() };
                found.insert(path, bytes);
            }
        }
    }
    found
}

impl Writer {
    fn hold(&self, name: &str) {
        let place = folder();
        // A path without links, as the library compares paths.
        let place = place.path().canonicalize().unwrap();
        let (root, template) = (place.join("root"), place.join("template"));
        fs::create_dir(&root).unwrap();
        (self.before)(&root);
        copy_folder(&root, &template);
        let reset = || {
            fs::remove_dir_all(&root).unwrap();
            copy_folder(&template, &root);
        };
        let with = |variables: &[(&str, &str)]| {
            let mut command = (self.command)(&root);
            command.env("LD_PRELOAD", fault_library()).env("FAULT_ROOT", &root);
            command.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap()
        };
        let list = place.join("steps");
        let output = with(&[("FAULT_STEPS", text(&list))]);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let steps = fs::read_to_string(&list).unwrap();
        let steps = of_each_kind(&steps);
        let stride = steps.len().div_ceil(self.most);
        assert!(steps.len() > 2, "{name}: {steps:?}");
        reset();
        let before = files(&root);
        let output = with(&[]);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let after = files(&root);
        let mut failures = 0;
        for (turn, (index, step)) in steps.into_iter().step_by(stride).enumerate() {
            for kind in [["EIO", "full"][turn % 2], "kill"] {
                reset();
                let output = with(&[("FAULT", &format!("{kind} Any {index}"))]);
                let told = stderr(&output);
                let what = format!("{name}: {kind} at {step}\n{told}");
                let warned = told.contains("TensorBoard gets no more of this run");
                // Nobody learns of a file that could not be closed; it was synced before.
                let seen = is_event_file(step) && !step.starts_with("Close");
                assert_eq!(warned, kind != "kill" && seen, "{what}");
                assert!(!told.contains("panicked"), "{what}");
                if kind == "kill" {
                    assert_eq!(output.status.signal(), Some(9), "{what}");
                } else if output.status.code() == Some(1) {
                    failures += 1;
                    let errors = told.lines().filter(|line| line.starts_with("error: "));
                    assert_eq!(errors.count(), 1, "{what}");
                    assert!(told.contains(text(&root)), "{what}");
                } else {
                    // The step did not matter.
                    assert!(output.status.success() && files(&root) == after, "{what}");
                }
                for (path, bytes) in files(&root) {
                    let known = [&before, &after].iter().any(|all| all.get(&path) == Some(&bytes));
                    assert!(known || may_be_left(&path), "{what}: {}", path.display());
                }
                let lost = before.keys().find(|path| !path.exists() && after.contains_key(*path));
                assert_eq!(lost, None, "{what}");
                let output = (self.again)(&root).stdin(Stdio::null()).output().unwrap();
                assert!(output.status.success(), "after {what}:\n{}", stderr(&output));
                assert!(files(&root) == after, "after {what}");
            }
        }
        assert!(failures > 0, "{name}");
    }
}

fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
    command.args(words);
    command
}

/// Trains with all that writes: checkpoints, of which one is kept, the best one, pictures.
fn train(root: &Path, iterations: &str, more: &[&str]) -> Command {
    let sets = ["run.checkpoint_interval=1", "run.eval_interval=2", "run.keep=1"];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let out = root.join("run");
    let words =
        sets.chain(["--max-iters", iterations, "--out", text(&out)]).chain(more.iter().copied());
    command("train", &words.collect::<Vec<_>>())
}

#[test]
fn training() {
    let writer = Writer {
        before: |_| (),
        command: |root| train(root, "2", &[]),
        again: |root| train(root, "2", &["--resume=auto"]),
        most: 99,
    };
    writer.hold("train");
}

#[test]
fn resuming() {
    let writer = Writer {
        before: |root| {
            let output = train(root, "1", &[]).output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            // As a killed run leaves it.
            let log = root.join("run/log.jsonl");
            let lines = fs::read_to_string(&log).unwrap();
            fs::write(&log, lines + "{\"event\": \"iteration\", \"iteration\": 1}\n{\"torn")
                .unwrap();
            fs::write(root.join("run/checkpoints/.iteration_000002.safetensors.tmp"), "torn")
                .unwrap();
        },
        command: |root| train(root, "2", &["--resume"]),
        again: |root| train(root, "2", &["--resume"]),
        most: 99,
    };
    writer.hold("resume");
}

#[test]
fn toy_worlds() {
    fn toy(root: &Path) -> Command {
        program(&["toy", text(&root.join("world")), "--size", "128x64"])
    }
    Writer { before: |_| (), command: toy, again: toy, most: 5 }.hold("toy");
}

#[test]
fn preparing() {
    fn prepare(root: &Path) -> Command {
        program(&["prepare", "gta", text(&root.join("gta"))])
    }
    fn downloaded(root: &Path) {
        copy_folder(&world().join("gta"), &root.join("gta"));
        for path in files(root).into_keys() {
            let name = text(&path);
            if name.ends_with("labelTrainIds.png") || name.ends_with(".json") {
                fs::remove_file(path).unwrap();
            }
        }
    }
    Writer { before: downloaded, command: prepare, again: prepare, most: 99 }.hold("prepare");
}

#[test]
fn converting() {
    fn to(root: &Path, name: &str) -> Command {
        let (from, to) = (reference_checkpoint(), root.join(name));
        program(&["weights", "convert", text(&from), text(&to)])
    }
    fn older(root: &Path) {
        fs::write(root.join("a.pth"), "older").unwrap();
        fs::write(root.join("a.safetensors"), "older").unwrap();
    }
    for command in [|root: &Path| to(root, "a.pth"), |root: &Path| to(root, "a.safetensors")] {
        Writer { before: older, command, again: command, most: 99 }.hold("convert");
    }
}

#[test]
fn predicting_and_reporting() {
    fn predict(root: &Path) -> Command {
        let (network, images) =
            (reference_checkpoint(), world().join("cityscapes/leftImg8bit/val"));
        let (logits, out) = (root.join("logits.safetensors"), root.join("out"));
        let image = files(&images).into_keys().next().unwrap();
        let words = ["--checkpoint", text(&network), "--logits", text(&logits)];
        command("predict", &[&words[..], &["--out", text(&out), text(&image)]].concat())
    }
    fn submit(root: &Path) -> Command {
        let (network, zip) = (reference_checkpoint(), root.join("submission.zip"));
        let words = ["--checkpoint", text(&network), "--split", "val", "--submission", text(&zip)];
        command("predict", &words)
    }
    fn evaluate(root: &Path) -> Command {
        let (network, json) = (reference_checkpoint(), root.join("evaluation.json"));
        command("eval", &["--checkpoint", text(&network), "--json", text(&json)])
    }
    for (name, command) in
        [("predict", predict as fn(&Path) -> Command), ("submit", submit), ("eval", evaluate)]
    {
        Writer { before: |_| (), command, again: command, most: 99 }.hold(name);
    }
}
