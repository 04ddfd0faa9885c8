//! Tests that files of earlier versions can still be read: tests/formats has one of each kind, as
//! version 0.1.0 wrote it.
//!
//! They represent what users have on disk: a configuration with keys of every section, the
//! configuration inside a checkpoint, the names, types and shapes of a checkpoint's tensors (which
//! the test fills with numbers), a log, and the JSON of an evaluation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use udass_raw::config::Config;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(fixture(name)).unwrap()
}

fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn run_in(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
    command.current_dir(folder).args(words).output().unwrap()
}

/// Returns the standard output of the command, which must succeed.
#[track_caller]
fn succeed(folder: &Path, words: &[&str]) -> String {
    let output = run_in(folder, words);
    assert!(output.status.success(), "{words:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Writes the stored checkpoint with numbers that are valid in any network: small and, because of
/// variances, positive. Bytes of images and labels are zero.
fn write_checkpoint(path: &Path) {
    let header = read("checkpoint.json");
    let tensors: Value = serde_json::from_str(&header).unwrap();
    let end = |tensor: &Value| tensor["data_offsets"][1].as_u64();
    let size = tensors.as_object().unwrap().values().filter_map(end).max().unwrap() as usize;
    let mut bytes = vec![0u8; size];
    for tensor in tensors.as_object().unwrap().values() {
        let [begin, end] = [0, 1].map(|i| tensor["data_offsets"][i].as_u64().unwrap_or(0) as usize);
        if tensor["dtype"] == "F32" {
            for (i, number) in bytes[begin..end].as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *number = (0.01 + (i % 17) as f32 / 500.0).to_le_bytes();
            }
        }
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), &bytes].concat()).unwrap();
}

/// Creates a folder with a toy world and, in `run`, the stored run.
fn stored_run() -> TempDir {
    let folder = folder();
    succeed(folder.path(), &["toy", "world", "--size", "128x64"]);
    let run = folder.path().join("run");
    write_checkpoint(&run.join("checkpoints/iteration_000004.safetensors"));
    fs::copy(fixture("log.jsonl"), run.join("log.jsonl")).unwrap();
    folder
}

/// Writes the stored run's configuration to a file.
fn stored_configuration(folder: &Path) -> String {
    let header: Value = serde_json::from_str(&read("checkpoint.json")).unwrap();
    let text = header["__metadata__"]["config"].as_str().unwrap();
    fs::write(folder.join("stored.toml"), text).unwrap();
    "stored.toml".into()
}

#[test]
fn a_configuration_of_every_section_is_read() {
    let config = Config::load(fixture("mine.toml").to_str().unwrap(), &[]).unwrap();
    let written: toml::Table = config.to_toml().unwrap().parse().unwrap();
    // These keys have kept their names.
    for (section, key, value) in [
        ("source", "layout", "\"files\""),
        ("data", "batch", "1"),
        ("network", "classes", "3"),
        ("mask", "images", "\"both\""),
        ("quadmix", "classes", "[1, 2]"),
        ("run", "keep", "2"),
    ] {
        assert_eq!(written[section][key].to_string(), value, "{section}.{key}");
    }
    assert_eq!(config.seed, 7);
}

#[test]
fn a_checkpoints_configuration_is_the_one_it_was_written_with() {
    let folder = folder();
    let file = folder.path().join(stored_configuration(folder.path()));
    let config = Config::load(file.to_str().unwrap(), &[]).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(config.differences(&text).unwrap(), [""; 0]);
    let other = Config::load(file.to_str().unwrap(), &["teacher.alpha=0.5".into()]).unwrap();
    let differences = other.differences(&text).unwrap();
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences[0].contains("teacher.alpha"), "{differences:?}");
}

#[test]
fn a_checkpoint_is_whole_evaluates_and_goes_on() {
    let folder = stored_run();
    let said = succeed(folder.path(), &["weights", "verify", "run"]);
    assert!(said.contains("the network is complete"), "{said}");
    let config = stored_configuration(folder.path());
    for weights in ["student", "teacher"] {
        let words = ["eval", &config, "--checkpoint", "run", "--weights", weights];
        assert!(succeed(folder.path(), &words).contains("mIoU"));
    }
    let words = ["train", &config, "--resume", "--out", "run", "--max-iters", "6"];
    succeed(folder.path(), &[&words[..], &["--set", "run.eval_interval=0"]].concat());
    assert!(folder.path().join("run/checkpoints/iteration_000006.safetensors").is_file());
    let log = fs::read_to_string(folder.path().join("run/log.jsonl")).unwrap();
    let stored = read("log.jsonl");
    assert!(log.starts_with(&stored), "lines of the run so far are kept");
    let iterations = |log: &str| log.matches("\"event\":\"iteration\"").count();
    assert_eq!(iterations(&log), iterations(&stored) + 2);
}

#[test]
fn a_log_and_an_evaluation_are_reported() {
    let folder = stored_run();
    let markdown = succeed_to_file(folder.path(), "run");
    assert!(markdown.contains("6.7"), "{markdown}");
    fs::copy(fixture("evaluation.json"), folder.path().join("evaluation.json")).unwrap();
    let markdown = succeed_to_file(folder.path(), "evaluation.json");
    // Road's IoU, and the mean.
    assert!(markdown.contains("54.8") && markdown.contains("6.7"), "{markdown}");
}

/// Writes the report on `what` as Markdown and returns it.
#[track_caller]
fn succeed_to_file(folder: &Path, what: &str) -> String {
    succeed(folder, &["report", what, "--markdown", "report.md"]);
    fs::read_to_string(folder.join("report.md")).unwrap()
}
