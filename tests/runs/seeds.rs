//! Tests `train --seeds`.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{
    assert_same, checkpoint, command, events, folder, refused, run, stderr, succeed, text, wait_for,
};

#[test]
fn each_seed_is_the_run_that_it_would_be_alone() {
    let folder = folder();
    let out = folder.path().join("run");
    let of = |seed: u64| folder.path().join(format!("run_seed{seed}"));
    let short = ["--max-iters", "2", "--set", "run.eval_interval=2"];
    let output = succeed("train", &[&short[..], &["--out", text(&out), "--seeds", "3,1"]].concat());
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(lines[0].starts_with("seed 3  mIoU ") && lines[1].starts_with("seed 1  mIoU "));
    assert!(lines[2].contains(" ± ") && lines[2].ends_with(" over 2 seeds"), "{told}");
    let alone = folder.path().join("alone");
    succeed("train", &[&short[..], &["--out", text(&alone), "--set", "seed=3"]].concat());
    assert_same(&checkpoint(&of(3), 2), &checkpoint(&alone, 2));
    let losses = |seed| events(&of(seed), "iteration")[0]["losses"].clone();
    assert_ne!(losses(3), losses(1));
    let config = fs::read_to_string(of(1).join("config.toml")).unwrap();
    assert!(config.starts_with("seed = 1  # --seeds 1\n"), "{config}");

    // A run that cannot begin leaves the others alone.
    let more = ["--out", text(&out), "--seeds", "1,2", "--max-iters", "1"];
    let output = run("train", &more);
    refused(&output, &["1 of 2 runs failed: seed 1"]);
    let told = stderr(&output);
    assert!(told.contains("seed 1: failed: ") && told.contains("already contains a run"), "{told}");
    assert!(checkpoint(&of(2), 1).exists());
    // The rest of seed 2, and nothing of seed 1.
    let more = ["--out", text(&out), "--seeds", "1,2", "--max-iters", "2", "--resume=auto"];
    let output = succeed("train", &more);
    assert!(stderr(&output).contains("had finished before"), "{}", stderr(&output));
    assert!(checkpoint(&of(2), 2).exists());
}

#[test]
fn what_was_stopped_goes_on_with_all_that_is_left() {
    let folder = folder();
    let of = |seed: u64| folder.path().join(format!("my run_seed{seed}"));
    let out = folder.path().join("my run");
    let mut child = command("train", &["--max-iters", "4", "--seeds", "1,2", "--out", text(&out)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, || !events(&of(1), "iteration").is_empty());
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(!of(2).exists(), "{told}");
    let (_, line) = told.split_once("stopped; continue with `udass-raw ").expect(&told);
    let (line, _) = line.split_once('`').expect(&told);
    assert!(line.ends_with("--seeds 1,2 --resume=auto"), "{line}");
    let line = format!("'{}' {line}", env!("CARGO_BIN_EXE_udass-raw"));
    let resumed =
        Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    assert!(resumed.status.success(), "{line}\n{}", stderr(&resumed));
    assert!([1, 2].iter().all(|&seed| checkpoint(&of(seed), 4).exists()));
}
