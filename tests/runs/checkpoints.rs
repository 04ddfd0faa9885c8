//! Tests which checkpoints a run trusts, continues from and removes.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use udass_raw::checkpoint::files;

use crate::support::{
    Contents, ITERATIONS, assert_same, checkpoint, command, command_on, copy_folder, folder,
    reference, reference_checkpoint, refused, run, stderr, succeed, text, wait_for, world,
};

/// Trains to `iterations`, keeping all checkpoints, one every two iterations.
fn train(out: &Path, iterations: &str, more: &[&str]) -> std::process::Output {
    let sets = ["--set", "run.checkpoint_interval=2", "--set", "run.keep=0"];
    let always = ["--max-iters", iterations, "--out", text(out)];
    run("train", &[&sets[..], &always[..], more].concat())
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

// ---- damage

#[test]
fn a_damaged_checkpoint_is_refused_everywhere_and_the_newest_whole_one_is_named() {
    let folder = folder();
    let out = folder.path().join("run");
    assert!(train(&out, "6", &[]).status.success());
    let (newest, whole) = (checkpoint(&out, 6), checkpoint(&out, 4));
    let good = fs::read(&newest).unwrap();
    let copy = folder.path().join("copy.safetensors");
    fs::copy(&newest, &copy).unwrap();
    let converted = folder.path().join("converted.pth");
    let damages: [fn(&mut Vec<u8>); 5] = [
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
        },
        // One letter of the metadata: an iteration of a template.
        |bytes| {
            let key = b"\"templates.iteration\":\"";
            let at = bytes.windows(key.len()).position(|part| part == key).unwrap();
            bytes[at + key.len()] = b'3';
        },
        |bytes| {
            let key = b"\"crc32\":\"";
            let at = bytes.windows(key.len()).position(|part| part == key).unwrap() + key.len();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        },
        |bytes| bytes.truncate(bytes.len() - 4096),
    ];
    for damage in damages {
        change(&newest, |bytes| {
            bytes.clone_from(&good);
            damage(bytes);
        });
        refused(&train(&out, "8", &["--resume"]), &[text(&newest), text(&whole), "--resume=auto"]);
        refused(&run("eval", &["--checkpoint", text(&newest)]), &[text(&newest)]);
        refused(&run("eval", &["--checkpoint", text(&out)]), &[text(&newest), text(&whole)]);
        let image = world().join("gta/images/00001.png");
        let predicted = folder.path().join("predicted");
        let words = ["--checkpoint", text(&newest), "--out", text(&predicted), text(&image)];
        refused(&run("predict", &words), &[text(&newest)]);
        let program = || std::process::Command::new(env!("CARGO_BIN_EXE_udass-raw"));
        for words in [
            &["weights", "verify", text(&newest)][..],
            &["weights", "inspect", text(&newest)],
            &["weights", "convert", text(&newest), text(&converted)],
        ] {
            refused(&program().args(words).output().unwrap(), &[text(&newest)]);
        }
        let start = ["--checkpoint", text(&newest), "--out", text(&predicted)];
        refused(&run("train", &start), &[text(&newest)]);
    }
    assert!(!converted.exists());
    let output = train(&out, &ITERATIONS.to_string(), &["--resume=auto"]);
    let told = stderr(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains(&format!("continuing from {} instead", whole.display())), "{told}");
    assert_same(&checkpoint(&out, ITERATIONS), &reference_checkpoint());
    // Iteration 6 was saved again.
    assert_same(&newest, &copy);
}

#[test]
fn without_a_whole_checkpoint_there_is_nothing_to_go_on_from() {
    let folder = folder();
    let out = folder.path().join("run");
    assert!(train(&out, "2", &[]).status.success());
    change(&checkpoint(&out, 2), |bytes| bytes.truncate(100));
    refused(&train(&out, "4", &["--resume=auto"]), &[text(&checkpoint(&out, 2))]);
}

// ---- values

#[test]
fn a_state_that_is_not_finite_is_refused_with_the_tensor() {
    let folder = folder();
    let out = folder.path().join("run");
    copy_folder(reference(), &out);
    let path = checkpoint(&out, ITERATIONS);
    let whole = Contents::of(&path);
    let network = "decode_head.head.fuse_layer.bottleneck.bn.running_var";
    let variance = format!("model.{network}");
    let teachers = format!("ema_model.{network}");
    let image = world().join("gta/images/00001.png");
    let predicted = folder.path().join("predicted");
    let cases = [
        ("model.backbone.norm2.bias", f32::NAN, true),
        ("ema_model.backbone.norm2.bias", f32::NAN, false),
        ("optimizer.exp_avg.backbone.norm2.bias", f32::INFINITY, false),
        ("optimizer.exp_avg_sq.backbone.norm2.bias", -1e-9, false),
        (&variance, -1e-3, true),
        (&variance, f32::INFINITY, true),
        (&teachers, f32::NAN, false),
    ];
    for (name, number, student) in cases {
        let mut state = whole.clone();
        state.put(name, 1, number);
        state.write(&path);
        let short = name.strip_prefix("ema_").unwrap_or(name);
        let resumed = run("train", &["--resume", "--max-iters", "9", "--out", text(&out)]);
        refused(&resumed, &[text(&path), short]);
        let to = folder.path().join("converted.pth");
        let words = ["weights", "convert", text(&path), text(&to)];
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_udass-raw"));
        refused(&program.args(words).output().unwrap(), &[text(&path), name]);
        if student {
            let given = ["--checkpoint", text(&path)];
            refused(&run("eval", &given), &[text(&path), name]);
            let more = ["--out", text(&predicted), text(&image)];
            refused(&run("predict", &[&given[..], &more[..]].concat()), &[text(&path), name]);
            let more = ["--start-iteration", "0", "--out", text(&predicted)];
            refused(&run("train", &[&given[..], &more[..]].concat()), &[text(&path), name]);
        }
    }
    // Finite weights whose logits are not.
    let mut state = whole.clone();
    for name in whole.tensors.keys().filter(|name| name.starts_with("model.decode_head.")) {
        if name.ends_with("conv_seg.weight") {
            state.put(name, 0, f32::MAX);
            state.put(name, 1, f32::MAX);
        }
        if name.ends_with("bn.weight") || name.ends_with("bn.bias") {
            let count = state.tensors[name].1[0];
            (0..count).for_each(|at| state.put(name, at, 1e30));
        }
    }
    state.write(&path);
    refused(&run("eval", &["--checkpoint", text(&path)]), &["logits are not finite"]);
    whole.write(&path);
    succeed("eval", &["--checkpoint", text(&path)]);
}

// ---- which run a checkpoint belongs to

#[test]
fn a_run_removes_only_checkpoints_of_its_own() {
    let folder = folder();
    let (out, other) = (folder.path().join("run"), folder.path().join("other"));
    let keeping = ["--set", "run.keep=1"];
    assert!(train(&out, "4", &keeping).status.success());
    assert!(train(&other, "2", &["--set", "seed=2"]).status.success());
    let stray = checkpoint(&out, 2);
    assert!(!stray.exists(), "one is kept");
    fs::copy(checkpoint(&other, 2), &stray).unwrap();
    let resumed = train(&out, "8", &[&["--resume"], &keeping[..]].concat());
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(fs::read(&stray).unwrap() == fs::read(checkpoint(&other, 2)).unwrap());
    assert!(!checkpoint(&out, 4).exists() && !checkpoint(&out, 6).exists());
    assert_same(&checkpoint(&out, 8), &reference_checkpoint());
}

#[test]
fn checkpoints_of_another_run_are_not_written_over() {
    let folder = folder();
    let out = folder.path().join("run");
    assert!(train(&out, "6", &["--set", "seed=2"]).status.success());
    fs::remove_file(out.join("log.jsonl")).unwrap();
    let files = |out: &Path| -> Vec<Vec<u8>> {
        [2, 4, 6].map(|iteration| fs::read(checkpoint(out, iteration)).unwrap()).to_vec()
    };
    let before = files(&out);
    let parts = [text(&out), "checkpoints of another run", "--resume", "--out"];
    refused(&train(&out, "4", &[]), &parts);
    let weights = reference_checkpoint();
    let from = ["--checkpoint", text(&weights), "--start-iteration", "0"];
    refused(&train(&out, "4", &from), &parts);
    assert!(files(&out) == before);
    // Without its log, the run itself can still continue.
    assert!(train(&out, "8", &["--resume", "--set", "seed=2"]).status.success());
}

#[test]
fn a_checkpoint_must_be_what_its_name_and_the_log_say() {
    let folder = folder();
    let (out, other) = (folder.path().join("run"), folder.path().join("other"));
    assert!(train(&out, "4", &[]).status.success());
    let renamed = checkpoint(&out, 100);
    fs::copy(checkpoint(&out, 2), &renamed).unwrap();
    let parts = [text(&renamed), "of iteration 2", "name"];
    refused(&train(&out, "6", &["--resume"]), &parts);
    refused(&run("eval", &["--checkpoint", text(&out)]), &parts);
    refused(&run("eval", &["--checkpoint", text(&renamed)]), &parts);
    fs::remove_file(&renamed).unwrap();

    // The same configuration on other weights is another run.
    let weights = reference_checkpoint();
    let from = ["--checkpoint", text(&weights), "--start-iteration", "0"];
    assert!(train(&other, "6", &from).status.success());
    fs::copy(checkpoint(&other, 6), checkpoint(&out, 6)).unwrap();
    let log = out.join("log.jsonl");
    refused(&train(&out, "8", &["--resume"]), &[text(&checkpoint(&out, 6)), text(&log), "of run"]);
    fs::remove_file(checkpoint(&out, 6)).unwrap();
    assert!(train(&out, "8", &["--resume"]).status.success());
    assert_same(&checkpoint(&out, 8), &reference_checkpoint());
}

#[test]
fn a_folder_renamed_under_a_run_does_not_mix_it_with_the_next() {
    let folder = folder();
    let (out, moved) = (folder.path().join("run"), folder.path().join("moved"));
    let sets = ["--set", "run.checkpoint_interval=1", "--max-iters", "5000", "--out", text(&out)];
    let mut first =
        command("train", &sets).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&mut first, || checkpoint(&out, 1).exists());
    fs::rename(&out, &moved).unwrap();
    let second = train(&out, "2", &["--set", "seed=2"]);
    let first = first.wait_with_output().unwrap();
    refused(&first, &[text(&out.join("log.jsonl")), "while the run was writing"]);
    assert!(second.status.success(), "{}", stderr(&second));
    let seeds = |out: &Path, iteration: u64| {
        Contents::of(&checkpoint(out, iteration)).strings["config"].contains("seed = 2")
    };
    assert!(seeds(&out, 2) && !checkpoint(&out, 1).exists());
    let mine = files::list(&moved);
    assert!(!mine.is_empty() && mine.iter().all(|(iteration, _)| !seeds(&moved, *iteration)));
    let resumed = run("train", &["--resume", "--max-iters", "8", "--out", text(&moved)]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert_same(&checkpoint(&moved, 8), &reference_checkpoint());
}

// ---- data

#[test]
fn a_run_continues_only_on_the_data_that_it_was_started_with() {
    let folder = folder();
    let data = folder.path().join("world");
    copy_folder(world(), &data);
    let out = folder.path().join("run");
    let on = |data: &Path, more: &[&str]| {
        let sets = ["--set", "run.checkpoint_interval=2", "--set", "run.keep=0"];
        let args = [&sets[..], &["--out", text(&out)], more].concat();
        command_on(data, "train", &args).output().unwrap()
    };
    let began = on(&data, &["--max-iters", "2"]);
    assert!(began.status.success(), "{}", stderr(&began));
    // A dataset may move, and a copy has other times.
    let moved = folder.path().join("moved");
    copy_folder(&data, &moved);
    let resumed = on(&moved, &["--resume", "--max-iters", "4"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));

    let target = "cityscapes/leftImg8bit/train";
    let city = fs::read_dir(data.join(target)).unwrap().next().unwrap().unwrap().path();
    let mut images: Vec<_> =
        fs::read_dir(&city).unwrap().map(|entry| entry.unwrap().path()).collect();
    images.sort();
    let all = 14;
    let one_more = city.join(format!("{}_leftImg8bit.png", "ulm_000999_000019"));
    let first = images[0].file_name().unwrap().to_str().unwrap();
    let good = fs::read(&images[0]).unwrap();
    let undo = || {
        let _ = fs::remove_file(&one_more);
        fs::write(&images[0], &good).unwrap();
    };
    let count = |n: usize| format!("target images: {n} files, were {all}");
    let changes: [(&dyn Fn(), [String; 2]); 4] = [
        (&|| assert!(fs::copy(&images[1], &one_more).is_ok()), [count(all + 1), "new".into()]),
        (&|| fs::remove_file(&images[0]).unwrap(), [count(all - 1), "gone".into()]),
        (&|| fs::write(&images[0], &good[..40]).unwrap(), [first.into(), "another size".into()]),
        (
            &|| change(&images[0], |bytes| *bytes.last_mut().unwrap() ^= 1),
            [first.into(), "another content".into()],
        ),
    ];
    for (change, parts) in changes {
        change();
        let parts = parts.each_ref().map(String::as_str);
        let resumed = on(&data, &["--resume", "--max-iters", "6"]);
        refused(&resumed, &[&parts[..], &[text(&out), "--accept-changed-data"]].concat());
        undo();
    }
    // Labels count too, and the list need not be there.
    let label = data.join("gta/labels/00001_labelTrainIds.png");
    // Decoders leave out what follows the end of an image.
    change(&label, |bytes| bytes.push(0));
    fs::remove_file(out.join("data.tsv")).unwrap();
    let resumed = on(&data, &["--resume", "--max-iters", "6"]);
    refused(&resumed, &["source labels: ", "--accept-changed-data"]);
    let accepted = on(&data, &["--resume", "--accept-changed-data", "--max-iters", "6"]);
    let told = stderr(&accepted);
    assert!(accepted.status.success() && told.contains("source labels: "), "{told}");
    // From then on, that is the run's data.
    let resumed = on(&data, &["--resume", "--max-iters", "8"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
}
