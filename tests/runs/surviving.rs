//! Tests runs that are killed, run out of disk space, lose files or are asked to stop: nothing is
//! lost, and they end with the bits of an undisturbed run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use udass_raw::checkpoint::files as checkpoints;
use udass_raw::checkpoint::tensor_file::TensorFile;

use crate::faults::fault_library;
use crate::support::{
    Contents, ITERATIONS, assert_same, checkpoint, command, command_on, copy_folder, events,
    folder, reference_checkpoint, run, stderr, succeed, text, wait_for, world,
};

// ---- faults in the middle of a write

/// Trains, from scratch or resumed, in a process that is killed or whose disk is full at a given
/// step of writing a checkpoint; fault.c injects the fault.
fn with_fault(out: &Path, fault: &str, interval: &str) -> Output {
    let (iterations, interval) =
        (ITERATIONS.to_string(), format!("run.checkpoint_interval={interval}"));
    let mut args = vec!["--max-iters", &iterations, "--set", &interval, "--out", text(out)];
    args.extend((!checkpoints::list(out).is_empty()).then_some("--resume"));
    let mut command = command("train", &args);
    command.env("LD_PRELOAD", fault_library()).env("FAULT", fault).output().unwrap()
}

/// Starts training up to `iterations` with a checkpoint after each, from scratch or resumed.
fn training(out: &Path, iterations: u64) -> Child {
    let iterations = iterations.to_string();
    let mut args = vec!["--max-iters", &iterations, "--set", "run.checkpoint_interval=1"];
    args.extend(["--out", text(out)]);
    args.extend((!checkpoints::list(out).is_empty()).then_some("--resume"));
    let mut command = command("train", &args);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn newest(out: &Path) -> u64 {
    checkpoints::list(out).last().map_or(0, |(number, _)| *number)
}

/// Asserts that the process ended by SIGKILL.
#[track_caller]
fn assert_killed(status: std::process::ExitStatus) {
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(9), "{status}");
}

/// The n-th random number of a seed.
fn drawn(seed: u64, n: u64) -> u64 {
    let mut x = (seed << 32 | n).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    x.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

#[test]
fn twenty_kills_across_the_switch_to_quadmix_change_no_bit() {
    // Each of four runs is killed three times at a random moment, and twice at a step of writing a
    // checkpoint.
    let faults = [
        ["kill Create 1", "kill Rename 1"],
        ["kill Write 40", "kill Sync 0"],
        ["kill Write 900", "kill SyncFolder 0"],
        ["kill Rename 0", "kill Write 0"],
    ];
    let expected = TensorFile::open(reference_checkpoint()).unwrap().digest().unwrap();
    let (mut kills, mut before, mut after) = (0, 0, 0);
    for (seed, faults) in faults.into_iter().enumerate() {
        let folder = folder();
        let out = folder.path();
        // Half of the runs are killed before QuadMix starts or just as it does, half after.
        if seed % 2 == 1 {
            assert!(training(out, crate::support::START).wait().unwrap().success());
        }
        for turn in 0..5 {
            let first = newest(out);
            if turn % 2 == 1 {
                assert_killed(with_fault(out, faults[turn / 2], "1").status);
            } else {
                let draw = |n: u64| drawn(seed as u64, 10 * turn as u64 + n);
                let logged = (first + 1 + draw(0) % 2).min(ITERATIONS - 1);
                // This run would not end by itself.
                let mut child = training(out, 5000);
                wait_for(&mut child, || events(out, "iteration").len() as u64 >= logged);
                std::thread::sleep(Duration::from_millis(draw(1) % 40));
                child.kill().unwrap();
                assert_killed(child.wait().unwrap());
            }
            kills += 1;
            let at = newest(out);
            assert!(at <= ITERATIONS, "killed too late, at {at}");
            before += u32::from(at < crate::support::START);
            after += u32::from(at >= crate::support::START);
            // Every checkpoint that exists is complete.
            for (_, path) in checkpoints::list(out) {
                Contents::of(&path);
            }
        }
        assert!(training(out, ITERATIONS).wait().unwrap().success());
        assert_eq!(newest(out), ITERATIONS);
        assert_same(&checkpoint(out, ITERATIONS), &reference_checkpoint());
        assert_eq!(
            TensorFile::open(checkpoint(out, ITERATIONS)).unwrap().digest().unwrap(),
            expected
        );
        let leftovers = fs::read_dir(checkpoints::folder(out)).unwrap().flatten();
        let leftovers = leftovers.filter(|e| e.file_name().to_string_lossy().starts_with('.'));
        assert_eq!(leftovers.count(), 0, "half-written files stay");
        assert_eq!(events(out, "iteration").len() as u64, ITERATIONS);
    }
    assert_eq!(kills, 20);
    assert!(before >= 4 && after >= 4, "{before} kills before the switch, {after} after");
}

#[test]
fn a_full_disk_ends_a_run_and_loses_nothing() {
    let folder = folder();
    let begun = folder.path().join("begun");
    succeed("train", &["--max-iters", "4", "--out", text(&begun)]);
    let whole = fs::read(checkpoint(&begun, 4)).unwrap();
    for fault in ["full Create 0", "full Write 0", "full Write 77", "full Sync 0", "full Rename 0"]
    {
        let out = folder.path().join(fault);
        copy_folder(&begun, &out);
        let output = with_fault(&out, fault, "4");
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{fault}: {told}");
        assert!(told.contains("the disk is full"), "{fault}: {told}");
        assert!(told.contains(text(&checkpoint(&out, ITERATIONS))), "{fault}: {told}");
        let left: Vec<PathBuf> = fs::read_dir(checkpoints::folder(&out))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, [checkpoint(&out, 4)], "{fault}");
        assert!(fs::read(&left[0]).unwrap() == whole, "{fault}: the previous checkpoint changed");
        succeed("train", &["--max-iters", "8", "--resume", "--out", text(&out)]);
        assert_same(&checkpoint(&out, ITERATIONS), &reference_checkpoint());
    }
}

#[test]
fn steps_come_in_the_order_that_is_safe() {
    // A kill before each step leaves either the old file or the new one.
    let folder = folder();
    let begun = folder.path().join("begun");
    succeed("train", &["--max-iters", "4", "--out", text(&begun)]);
    for step in ["Create", "Write", "Sync", "Rename", "SyncFolder"] {
        let out = folder.path().join(step);
        copy_folder(&begun, &out);
        assert_killed(with_fault(&out, &format!("kill {step} 0"), "4").status);
        let expected = if step == "SyncFolder" { ITERATIONS } else { 4 };
        assert_eq!(newest(&out), expected, "{step}");
        let temporary = checkpoints::folder(&out).join(".iteration_000008.safetensors.tmp");
        let half = matches!(step, "Write" | "Sync" | "Rename");
        assert_eq!(temporary.exists(), half, "{step}");
    }
}

// ---- signals and neighbors

#[test]
fn sigterm_saves_and_is_success() {
    let folder = folder();
    let out = folder.path();
    let args = ["--max-iters", "5000", "--out", text(out)];
    let mut child =
        command("train", &args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&mut child, || events(out, "iteration").len() >= 2);
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("--resume`"), "{}", stderr(&output));
    let saved = newest(out);
    assert!((2..ITERATIONS).contains(&saved), "saved at {saved}");
    succeed("train", &["--max-iters", "8", "--resume", "--out", text(out)]);
    assert_same(&checkpoint(out, ITERATIONS), &reference_checkpoint());
}

#[test]
fn two_runs_in_one_folder_are_refused() {
    let folder = folder();
    let out = folder.path();
    let mut child = training(out, 5000);
    wait_for(&mut child, || newest(out) > 0);
    let id = child.id().to_string();
    for more in [&["--resume"][..], &[]] {
        let args = ["--max-iters", "9", "--out", text(out)];
        let output = run("train", &[&args[..], more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        for part in [text(out), "is writing to this folder", &id, "--out"] {
            assert!(stderr(&output).contains(part), "{part} in {}", stderr(&output));
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "the first goes on");
    child.kill().unwrap();
    child.wait().unwrap();
    // The operating system released the dead process's lock.
    let next = (newest(out) + 1).to_string();
    succeed("train", &["--resume", "--max-iters", &next, "--out", text(out)]);
}

#[test]
fn a_resume_under_another_configuration_names_the_keys() {
    let folder = folder();
    let out = folder.path();
    succeed("train", &["--max-iters", "4", "--out", text(out)]);
    let resume = |sets: &[&str]| {
        let mut args = vec!["--resume", "--max-iters", "5", "--out", text(out)];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        run("train", &args)
    };
    let output = resume(&["optimizer.lr=1e-3", "network.hrda.detail_crop=40", "mask.ratio=0.3"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in [
        text(&checkpoint(out, 4)),
        "optimizer.lr: was 0.002, is 0.001",
        "network.hrda.detail_crop: was 32, is 40",
        "mask.ratio: was 0.5, is 0.3",
        "--checkpoint",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(told.matches(": was ").count(), 3, "{told}");
    let harmless = ["run.keep=2", "device.threads=1", "data.workers=3", "eval.batch=2"];
    let output = resume(&[&harmless[..], &["run.checkpoint_interval=3"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(newest(out), 5);
}

// ---- data that goes bad

/// Damages every third image of a domain, deleting some of them.
fn damage(world: &Path) -> Vec<PathBuf> {
    let mut open = vec![world.join("gta/images"), world.join("cityscapes/leftImg8bit/train")];
    let mut images = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { images.push(path) }
        }
    }
    images.sort();
    let bad: Vec<PathBuf> = images.into_iter().step_by(3).collect();
    for (i, path) in bad.iter().enumerate() {
        if i % 2 == 0 {
            fs::remove_file(path).unwrap();
        } else {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..40]).unwrap();
        }
    }
    bad
}

#[test]
fn files_that_go_bad_in_a_run_are_skipped_and_counted_or_end_it() {
    let folder = folder();
    let data = folder.path().join("world");
    copy_folder(world(), &data);
    let out = |name: &str| folder.path().join(name);
    let on = |name: &str, args: &[&str]| {
        let out = out(name);
        let args = [args, &["--out", text(&out)]].concat();
        command_on(&data, "train", &args).output().unwrap()
    };
    assert!(on("begun", &["--max-iters", "2"]).status.success());
    for name in ["few", "many", "threads"] {
        copy_folder(&out("begun"), &out(name));
    }
    // Files disappear during a run, which by default ends it.
    let fatal = out("fatal");
    let args = ["--max-iters", "5000", "--out", text(&fatal)];
    let mut child = command_on(&data, "train", &args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, || newest(&fatal) > 0);
    let bad = damage(&data);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(bad.iter().any(|path| told.contains(text(path))), "{told}");
    Contents::of(&checkpoint(&fatal, newest(&fatal)));
    // Resuming lists the folders and would notice that files are missing, so they are recreated
    // empty.
    for path in bad.iter().filter(|path| !path.exists()) {
        fs::write(path, "").unwrap();
    }
    let resumed = |name: &str, sets: &[&str], to: &str| {
        let mut args = vec!["--resume", "--accept-changed-data", "--max-iters", to];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        on(name, &args)
    };
    let named = |told: &str| bad.iter().any(|path| told.contains(text(path)));
    let output = resumed("few", &["data.max_bad_files=1"], "8");
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(named(&told) && told.contains("data.max_bad_files"), "{told}");

    let output = resumed("many", &["data.max_bad_files=99"], "8");
    assert!(output.status.success(), "{}", stderr(&output));
    let skipped = events(&out("many"), "skipped_file");
    assert!(!skipped.is_empty() && skipped.len() <= bad.len());
    let files: Vec<&str> = skipped.iter().map(|line| line["file"].as_str().unwrap()).collect();
    assert!(files.iter().all(|file| named(file)), "{files:?}");
    let counts: Vec<u64> = skipped.iter().map(|line| line["skipped"].as_u64().unwrap()).collect();
    assert_eq!(counts, (1..=skipped.len() as u64).collect::<Vec<_>>(), "each once");

    // The same bits with other thread counts and an interruption; the count of bad files continues.
    let sets = ["data.max_bad_files=99", "data.workers=3", "device.threads=1"];
    assert!(resumed("threads", &sets, "5").status.success());
    assert!(resumed("threads", &sets, "8").status.success());
    assert_same(&checkpoint(&out("threads"), 8), &checkpoint(&out("many"), 8));
    let list = |name: &str| Contents::of(&checkpoint(&out(name), 8)).strings["skipped"].clone();
    assert_eq!(list("threads"), list("many"));
    let listed: Value = serde_json::from_str(&list("many")).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), skipped.len());
}
