//! Tests whole runs on the stand-in, each in its own process: they end with identical bits whatever
//! interrupts them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use udass_raw::checkpoint::files as checkpoints;
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::config::Config;
use udass_raw::device::Types;
use udass_raw::run::train::replay::replay;
use udass_raw::run::train::resume::ResumeOptions;
use udass_raw::run::train::signal::Stop;
use udass_raw::run::train::trainer::{Start, train_on};

use super::steps::support::{
    Contents, checkpoint, events, folder, reference_checkpoint, settings, text, wait_for,
};
use crate::stand_in;

/// The run switches from MIC to QuadMix, with dropout, jitter and blur on.
const ITERATIONS: u64 = 20;
const START: u64 = 10;

/// Trains in this process, in the folder OUT up to iteration UNTIL.
#[test]
#[ignore = "started by the tests of runs"]
fn child_that_trains() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let out = PathBuf::from(variable("OUT"));
    let sets = [
        format!("run.out={}", out.display()),
        format!("run.max_iters={}", variable("UNTIL")),
        format!("run.checkpoint_interval={}", variable("INTERVAL")),
        format!("quadmix.start={START}"),
    ];
    let sets: Vec<String> = settings().into_iter().chain(sets).collect();
    let config = Config::load("toy_vit", &sets).unwrap();
    let begun = !checkpoints::list(&out).is_empty();
    let start = if begun { Start::Resume(ResumeOptions::default()) } else { Start::Weights };
    if let Err(e) = train_on(&stand_in::device(Types::F32), &config, start, &Stop::new(), &()) {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}

fn training(out: &Path, until: u64, interval: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["runs::child_that_trains", "--exact", "--ignored", "--nocapture"])
        .env("OUT", out)
        .env("UNTIL", until.to_string())
        .env("INTERVAL", interval.to_string())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns the hash of the whole state in a run's last checkpoint.
fn ended_in(out: &Path) -> String {
    format!("{:?}", TensorFile::open(checkpoint(out, ITERATIONS)).unwrap().digest().unwrap())
}

#[test]
fn twenty_iterations_end_in_the_same_bits_twice_and_through_kills() {
    let folders = [folder(), folder(), folder()];
    let [one, another, killed] = folders.each_ref().map(|folder| folder.path());
    let mut both = [one, another].map(|out| training(out, ITERATIONS, ITERATIONS));
    // The run is killed while it captures a graph and again between two QuadMix iterations, and is
    // resumed both times.
    for logged in [2, START + 3] {
        let mut child = training(killed, 5000, 1);
        wait_for(&mut child, || events(killed, "iteration").len() as u64 >= logged);
        child.kill().unwrap();
        child.wait().unwrap();
        let newest = checkpoints::list(killed).last().unwrap().0;
        assert!((logged - 1..ITERATIONS).contains(&newest), "killed too late, at {newest}");
    }
    assert!(training(killed, ITERATIONS, 1).wait().unwrap().success());
    assert!(both.iter_mut().all(|child| child.wait().unwrap().success()));
    let expected = ended_in(one);
    assert_eq!(ended_in(another), expected, "two fresh processes");
    assert_eq!(ended_in(killed), expected, "killed and resumed");
    let lines = events(one, "iteration");
    assert_eq!(lines.len() as u64, ITERATIONS);
    let mixed = |line: &serde_json::Value| line["losses"].get("mix_tst.decode.loss_seg").is_some();
    assert_eq!(lines.iter().filter(|line| mixed(line)).count() as u64, ITERATIONS - START);
    let story = |out: &Path| -> Vec<String> {
        let losses = |line: &serde_json::Value| line["losses"].to_string();
        events(out, "iteration").iter().map(losses).collect()
    };
    assert_eq!(story(another), story(one));
    assert_eq!(story(killed), story(one));
}

#[test]
fn a_number_that_is_not_finite_is_told_while_the_next_iteration_runs_and_loses_nothing() {
    let folder = folder();
    let (out, at) = (folder.path(), START - 2);
    let mut state = Contents::of(&reference_checkpoint());
    // What is normalized leaves the range of single precision, and its sum is no number.
    let name = "model.decode_head.head.fuse_layer.bottleneck.bn.weight";
    (0..state.tensors[name].1[0]).for_each(|at| state.put(name, at, f32::MAX));
    let path = checkpoint(out, at);
    // The reference run begins with QuadMix earlier.
    let config = state.strings.get_mut("config").unwrap();
    *config = config.replace("start = 4\n", &format!("start = {START}\n"));
    state.write(&path);
    let output = training(out, ITERATIONS, ITERATIONS).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let iteration = format!("iteration {at}: ");
    for part in [&iteration[..], "decode.loss_seg", "is not finite", "udass-raw replay"] {
        assert!(told.contains(part), "{part} in:\n{told}");
    }
    assert!(events(out, "iteration").is_empty(), "an iteration was logged");
    let dump = out.join(format!("not_finite/iteration_{at:06}.safetensors"));
    let (kept, whole) = (Contents::of(&dump), Contents::of(&path));
    assert!(whole.tensors.iter().all(|(name, tensor)| kept.tensors[name] == *tensor));
    assert_eq!(kept.strings["templates.iteration"], whole.strings["templates.iteration"]);
    assert_eq!(kept.strings["iteration"], whole.strings["iteration"]);
    let again = replay(Path::new(text(&dump)), Some("host")).unwrap();
    assert!(again.report.failed && again.iteration == at);
}
