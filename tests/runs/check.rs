//! Tests `train --check`: it finds what a run would find, all at once, and changes nothing.

use std::fs;
use std::process::Output;

use crate::support::{
    command_on, copy_folder, folder, reference, refused, run, stderr, succeed, text, world,
};

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Returns the line about one thing.
#[track_caller]
fn about(output: &Output, what: &str) -> String {
    let lines = lines(output);
    let found = lines.iter().find(|line| line.split_whitespace().next() == Some(what));
    found.unwrap_or_else(|| panic!("{what} in {lines:?}\n{}", stderr(output))).clone()
}

#[test]
fn what_a_run_needs_is_listed_and_nothing_is_written() {
    let folder = folder();
    let out = folder.path().join("new/run");
    let output =
        succeed("train", &["--check", "--out", text(&out), "--set", "run.eval_interval=4"]);
    assert!(about(&output, "device").contains("host"), "{:?}", lines(&output));
    assert!(about(&output, "folder").ends_with("new"), "{:?}", lines(&output));
    assert!(about(&output, "weights").ends_with("random"));
    let data = about(&output, "data");
    for expected in ["14 source images", "14 source labels", "14 target images", "is readable"] {
        assert!(data.contains(expected), "{expected} in {data}");
    }
    assert!(about(&output, "validation").contains("4 images"));
    assert!(about(&output, "memory").contains(" MiB are left of "), "{:?}", lines(&output));
    assert!(about(&output, "disk").contains("3 checkpoint(s)"), "{:?}", lines(&output));
    assert!(!folder.path().join("new").exists());

    // The size is that of a real checkpoint.
    let real = fs::metadata(crate::support::reference_checkpoint()).unwrap().len() >> 20;
    let expected = format!("of {real} MiB");
    assert!(about(&output, "disk").contains(&expected), "{expected} in {:?}", lines(&output));
}

#[test]
fn all_problems_are_told_at_once() {
    let folder = folder();
    let world_here = folder.path().join("world");
    copy_folder(world(), &world_here);
    fs::remove_dir_all(world_here.join("gta/images")).unwrap();
    fs::remove_dir_all(world_here.join("cityscapes/gtFine/val")).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let out = file.join("run");
    let absent = folder.path().join("absent.pth");
    let init = format!("weights.init={}", text(&absent));
    let sets = ["run.eval_interval=4", &init, "device.memory_limit=1MiB"];
    let mut args = vec!["--check", "--out", text(&out)];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let output = command_on(&world_here, "train", &args).output().unwrap();
    refused(
        &output,
        &[
            "5 problems",
            "is no folder",
            "weights.init",
            "gta/images",
            "gtFine/val",
            "the tensors of an iteration take ",
            "1 MiB are left of the device's memory limit",
            "data.batch = 1 instead of 2",
        ],
    );
    assert_eq!(about(&output, "weights").split_whitespace().nth(1), Some("PROBLEM,"));
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn a_full_disk_is_found() {
    let folder = folder();
    let out = folder.path().join("run");
    let sets = ["run.keep=0", "run.checkpoint_interval=1", "run.max_iters=5000"];
    let mut args = vec!["--check", "--out", text(&out)];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    // Checkpoints of MiT-B5 after each of 5000 iterations.
    args.extend(["--set", "network.backbone=mit_b5", "--set", "network.channels=256"]);
    let output = run("train", &args);
    refused(&output, &["5000 checkpoint(s)", "MiB are free", "run.keep = 0"]);
}

#[test]
fn a_run_is_checked_from_its_checkpoint() {
    let out = reference();
    let before = fs::read(out.join("log.jsonl")).unwrap();
    let sets = ["--set", "device.threads=1", "--set", "data.workers=1"];
    let check = ["--check", "--out", text(out), "--max-iters", "12"];
    let evaluated = ["--set", "run.eval_interval=8"];
    let args = [&check[..], &sets[..], &evaluated[..]].concat();
    let output = succeed("train", &[&args[..], &["--resume"]].concat());
    assert!(about(&output, "folder").contains("to be continued from 1 checkpoint(s)"));
    assert!(about(&output, "weights").contains("iteration_000008.safetensors"));
    assert_eq!(fs::read(out.join("log.jsonl")).unwrap(), before);

    refused(&run("train", &args), &["already contains a run", "--resume"]);
}
