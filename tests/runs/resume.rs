//! Tests that the same seed ends with the same bits, however often a run is stopped, with any
//! number of threads.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use udass_raw::checkpoint::convert::convert;
use udass_raw::checkpoint::pth::{self, Node};
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::weights::{Network, load_network};
use udass_raw::checkpoint::writer::Entry;
use udass_raw::checkpoint::{files as checkpoints, state};
use udass_raw::params::Weights;
use udass_raw::run::build;
use udass_raw::run::train::initial_state;

use crate::support::{
    Contents, ITERATIONS, START, assert_same, checkpoint, command, config, events, folder,
    reference, reference_checkpoint, run, stderr, succeed, text, wait_for,
};

/// Returns what every iteration computed: its log line without the timings.
fn story(out: &Path) -> Vec<Value> {
    let of = |line: &Value| {
        json!([line["iteration"], line["losses"], line["lr"], line["pseudo_label_weight"]])
    };
    events(out, "iteration").iter().map(of).collect()
}

#[test]
fn the_reference_run_goes_through_all_that_training_has() {
    let lines = events(reference(), "iteration");
    assert_eq!(lines.len() as u64, ITERATIONS);
    for (i, line) in lines.iter().enumerate() {
        let losses = line["losses"].as_object().unwrap();
        let has = |name: &str| losses.keys().any(|key| key.starts_with(name));
        assert!(has("decode.loss_seg") && has("decode.hr.loss_seg") && has("masked."), "{line}");
        let four_ways = i as u64 >= START;
        assert_eq!(
            (has("mix."), has("mix_tss."), has("mix_tst.")),
            (!four_ways, four_ways, four_ways)
        );
        // Once QuadMix has started, pseudo-labels have weight and every loss contributes.
        assert!(losses.values().all(|value| value.is_f64()), "{line}");
        let positive = |value: &Value| value.as_f64().is_some_and(|x| x > 0.0);
        assert!(!four_ways || losses.values().all(positive), "{line}");
        assert!(!four_ways || positive(&line["pseudo_label_weight"]), "{line}");
    }
    let state = Contents::of(&reference_checkpoint());
    let confident = &state.tensors["templates.confident"].2;
    assert!(confident.contains(&1), "nothing of the target was ever pasted");
    let mut moved = 0;
    for (name, student) in &state.tensors {
        let Some(rest) = name.strip_prefix("model.") else { continue };
        let teacher = &state.tensors[&format!("ema_model.{rest}")];
        moved += (student != teacher) as usize;
    }
    assert!(moved > 100, "student and teacher share all but {moved} tensors");
}

#[test]
fn a_run_repeats_to_the_bit_with_any_number_of_threads() {
    for (threads, workers) in [(1, 1), (2, 3), (3, 2)] {
        let folder = folder();
        let threads = format!("device.threads={threads}");
        let workers = format!("data.workers={workers}");
        succeed(
            "train",
            &[
                "--set",
                &threads,
                "--set",
                &workers,
                "--max-iters",
                "8",
                "--out",
                text(folder.path()),
            ],
        );
        assert_eq!(story(folder.path()), story(reference()), "{threads}, {workers}");
        assert_same(&checkpoint(folder.path(), ITERATIONS), &reference_checkpoint());
    }
}

/// Stops before the first iteration with contrast losses, whose statistics the checkpoint must
/// restore, and after it, when the bank is full.
#[test]
fn class_statistics_and_bank_survive_a_stop() {
    for kind in ["distributions", "bank", "prototypes"] {
        let kind = format!("contrast.kind={kind}");
        let train = |out: &Path, iterations, resume: Option<&'static str>| {
            let sets = [&kind[..], "contrast.start=3", "contrast.memory=3"];
            let mut args = vec!["--method", "sepico", "--max-iters", iterations];
            args.extend(sets.iter().flat_map(|set| ["--set", set]));
            args.extend(["--out", text(out)]);
            succeed("train", &args.into_iter().chain(resume).collect::<Vec<_>>());
        };
        let (whole, parts) = (folder(), folder());
        train(whole.path(), "8", None);
        for (iterations, resume) in [("2", None), ("5", Some("--resume")), ("8", Some("--resume"))]
        {
            train(parts.path(), iterations, resume);
        }
        let of = |out: &Path| checkpoint(out, ITERATIONS);
        assert_same(&of(parts.path()), &of(whole.path()));
        assert_eq!(story(parts.path()), story(whole.path()), "{kind}");
        let state = Contents::of(&of(whole.path()));
        let counts = &state.tensors["contrast.amount"].2;
        assert!(counts.iter().any(|&byte| byte != 0), "{kind}: no cell had a class");
        assert_eq!(state.tensors.contains_key("contrast.bank"), kind.ends_with("bank"));
        for line in events(whole.path(), "iteration") {
            let losses = line["losses"].as_object().unwrap();
            let contrasted = line["iteration"].as_u64().unwrap() >= 3;
            let has = |name: &str| losses.contains_key(name);
            assert_eq!([has("src.aux.loss_cl"), has("tgt.aux.loss_cl")], [contrasted; 2]);
        }
    }
}

#[test]
fn a_run_that_was_stopped_twice_ends_in_the_same_bits() {
    let folder = folder();
    let out = folder.path();
    // Stops before the first QuadMix iteration, whose templates the checkpoint must restore, and
    // after it.
    for (iterations, resume) in [("4", None), ("5", Some("--resume")), ("8", Some("--resume"))] {
        let args = ["--max-iters", iterations, "--out", text(out)];
        succeed("train", &args.into_iter().chain(resume).collect::<Vec<_>>());
    }
    assert_same(&checkpoint(out, ITERATIONS), &reference_checkpoint());
    assert_eq!(story(out), story(reference()));
    let starts: Vec<_> = events(out, "start").iter().map(|s| s["iteration"].clone()).collect();
    assert_eq!(starts, [0, 4, 5]);
    // Nothing is left to do, so the state is unchanged.
    let before = fs::read(checkpoint(out, ITERATIONS)).unwrap();
    let log = fs::read(out.join("log.jsonl")).unwrap();
    let output = succeed("train", &["--max-iters", "8", "--resume", "--out", text(out)]);
    assert!(stderr(&output).contains("the run has finished its 8 iterations"), "{output:?}");
    assert_eq!(fs::read(checkpoint(out, ITERATIONS)).unwrap(), before);
    assert_eq!(fs::read(out.join("log.jsonl")).unwrap(), log);
}

#[test]
fn another_seed_is_another_run() {
    let folder = folder();
    succeed("train", &["--set", "seed=2", "--max-iters", "1", "--out", text(folder.path())]);
    assert_ne!(story(folder.path())[0], story(reference())[0]);
}

#[test]
fn a_checkpoint_loads_and_saves_to_the_same_bits() {
    let config = config(&[]);
    let device = build::device(&config).unwrap();
    let mut training = initial_state::build(&config, &device, None).unwrap();
    let file = TensorFile::open(reference_checkpoint()).unwrap();
    let position = state::load(&file, &mut training).unwrap();
    assert_eq!(position.next, ITERATIONS);
    let folder = folder();
    let copies = ["copy", "other"].map(|name| folder.path().join(name));
    for copy in &copies {
        state::save(copy, &mut training, &position, None).unwrap();
        assert_same(copy, &reference_checkpoint());
    }
    let [copy, other] = copies.map(|copy| fs::read(copy).unwrap());
    assert!(copy == other, "equal states make equal bytes");
}

#[test]
fn student_and_teacher_come_out_of_a_checkpoint_by_name() {
    let config = config(&[]);
    let device = build::device(&config).unwrap();
    let path = reference_checkpoint();
    let state = Contents::of(&path);
    // A new training that starts from a checkpoint takes its student for both networks.
    let file = TensorFile::open(&path).unwrap();
    let training = initial_state::build(&config, &device, Some(&file)).unwrap();
    let mut teacher = Weights::new(&device, training.student.spec(), false).unwrap();
    load_network(&file, &device, &mut teacher, Network::Teacher).unwrap();
    let all = [
        ("model.", &training.student),
        ("model.", training.teacher.as_ref().unwrap()),
        ("ema_model.", &teacher),
    ];
    for (prefix, weights) in all {
        for (i, param) in weights.spec().params().iter().enumerate() {
            let name = format!("{prefix}{}", param.name);
            let values = weights.export(&device, &weights.values, i).unwrap();
            assert!(values == state.f32(&name), "{name}");
        }
        for (i, buffer) in weights.spec().buffers().iter().enumerate() {
            let name = format!("{prefix}{}", buffer.name);
            let there = file.numbers(&name).unwrap();
            assert!(weights.export_buffer(&device, i).unwrap() == there, "{name}");
        }
    }
    // A folder stands for its newest checkpoint.
    let newest = checkpoints::open(reference()).unwrap();
    let newest = build::trained(&config, &device, &newest, Network::Student).unwrap().1;
    let values = device.read::<f32>(&newest.values).unwrap();
    assert!(values == device.read::<f32>(&training.student.values).unwrap());
}

#[test]
fn training_starts_from_weights_as_a_new_run() {
    let folder = folder();
    let out = folder.path().join("run");
    let from = reference_checkpoint();
    let args = ["--start-iteration", "0", "--max-iters", "1", "--out", text(&out)];
    succeed("train", &[&["--checkpoint", text(&from)][..], &args[..]].concat());
    let state = Contents::of(&checkpoint(&out, 1));
    assert_eq!(state.strings["iteration"], "1");
    let name = "model.decode_head.head.conv_seg.bias";
    let (before, after) = (Contents::of(&from).f32(name), state.f32(name));
    let far = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(before != after && far < 1e-2, "one update moved {name} by {far}");
}

#[test]
fn training_goes_on_from_the_references_checkpoints_at_their_iteration() {
    // A released checkpoint has counters and moments, its student as the teacher, and no templates.
    // The same state, built by hand from a run's own checkpoint, must end with the same bits.
    let folder = folder();
    let by_hand = folder.path().join("by_hand");
    let mut state = Contents::of(&reference_checkpoint());
    let parameters: Vec<String> = (state.tensors.keys())
        .filter_map(|name| name.strip_prefix("optimizer.exp_avg."))
        .map(String::from)
        .collect();
    for name in &parameters {
        let student = state.tensors[&format!("model.{name}")].clone();
        state.tensors.insert(format!("ema_model.{name}"), student);
    }
    state.tensors.retain(|name, _| !name.starts_with("templates."));
    state.strings.insert("templates.iteration".into(), String::new());
    state.write(&checkpoint(&by_hand, ITERATIONS));
    succeed("train", &["--resume", "--max-iters", "10", "--out", text(&by_hand)]);

    let torch = folder.path().join("reference.pth");
    let own = TensorFile::open(reference_checkpoint()).unwrap();
    convert(&own, &torch, None).unwrap();
    let back = folder.path().join("back.safetensors");
    let file = TensorFile::open(&torch).unwrap();
    convert(&file, &back, None).unwrap();
    assert_same(&back, &reference_checkpoint());
    assert_eq!(TensorFile::open(&back).unwrap().digest().unwrap(), own.digest().unwrap());
    // A checkpoint of the reference has no place for entries that only this program uses.
    let plain = folder.path().join("plain.pth");
    let Some(Node::Dict(mut tree)) = file.tree().unwrap() else { panic!("no tree") };
    tree.retain(|(key, _)| *key != Node::text("udass_raw"));
    let known = file.tensors().iter().filter(|info| !info.name.starts_with("udass_raw."));
    let entries = known.map(|info| Entry {
        name: info.name.clone(),
        dtype: info.dtype,
        shape: info.shape.clone(),
        bytes: Box::new(|| file.data(info)),
    });
    pth::write(&plain, &Node::Dict(tree), entries.collect()).unwrap();
    for (name, from) in [("own", &reference_checkpoint()), ("torch", &torch), ("plain", &plain)] {
        let out = folder.path().join(name);
        succeed("train", &["--checkpoint", text(from), "--max-iters", "10", "--out", text(&out)]);
        assert_same(&checkpoint(&out, 10), &checkpoint(&by_hand, 10));
        assert_eq!(story(&out), story(&by_hand));
        assert_eq!(events(&out, "start")[0]["iteration"], ITERATIONS);
    }
    // The converted file evaluates as the network that it was converted from.
    let table = |file: &Path, which: &str| {
        let output = succeed("eval", &["--checkpoint", text(file), "--weights", which]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| !line.contains("images in")).collect::<Vec<_>>().join("\n")
    };
    let student = table(&reference_checkpoint(), "student");
    assert_eq!(student, table(&torch, "student"));
    assert_ne!(student, table(&torch, "teacher"));
    let output = run("train", &["--checkpoint", text(&torch), "--max-iters", "8"]);
    assert!(stderr(&output).contains("starts at iteration 8, but run.max_iters = 8"));
}

#[test]
fn the_newest_checkpoint_is_kept() {
    let numbers: Vec<u64> = checkpoints::list(reference()).into_iter().map(|c| c.0).collect();
    assert_eq!(numbers, [ITERATIONS], "of those after 4 and 8 iterations `run.keep` keeps one");
    assert_eq!(checkpoints::resolve(reference()).unwrap(), reference_checkpoint());
    // Checkpoints are sorted numerically, and no other files are counted.
    let folder = folder();
    let kept = checkpoints::folder(folder.path());
    fs::create_dir_all(&kept).unwrap();
    for number in [999_999, 1_000_000, 5] {
        fs::write(checkpoints::path_of(folder.path(), number), b"").unwrap();
    }
    for other in ["iteration_best.safetensors", ".iteration_000009.safetensors.tmp", "notes.txt"] {
        fs::write(kept.join(other), b"").unwrap();
    }
    let numbers: Vec<u64> = checkpoints::list(folder.path()).into_iter().map(|c| c.0).collect();
    assert_eq!(numbers, [5, 999_999, 1_000_000]);
}

#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let folder = folder();
    // A name that a shell would split.
    let out = folder.path().join("my run");
    let mut child = command("train", &["--max-iters", "8", "--out", text(&out)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, || !events(&out, "iteration").is_empty());
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains("stopping after this iteration"), "{told}");
    assert!(!told.contains("panicked"), "{told}");

    // It stopped in the middle of the run and saved all completed iterations.
    let done = events(&out, "iteration").len() as u64;
    assert!((1..ITERATIONS).contains(&done), "{done} iterations were done");
    assert_eq!(checkpoints::resolve(&out).unwrap(), checkpoint(&out, done));

    // The printed command works when pasted as is.
    let (_, line) = told.split_once("stopped; continue with `udass-raw ").expect(&told);
    let (line, _) = line.split_once("`").expect(&told);
    let line = format!("'{}' {line}", env!("CARGO_BIN_EXE_udass-raw"));
    let resumed =
        Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    assert!(resumed.status.success(), "{line}\n{}", stderr(&resumed));
    assert_same(&checkpoint(&out, ITERATIONS), &reference_checkpoint());
    assert_eq!(story(&out), story(reference()));
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let folder = folder();
    let out = folder.path();
    let mut child = command("train", &["--max-iters", "8", "--out", text(out)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&mut child, || !checkpoints::list(out).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = checkpoints::list(out);
    assert!(kept.iter().all(|(number, _)| *number < ITERATIONS), "killed too late: {kept:?}");
    succeed("train", &["--max-iters", "8", "--resume", "--out", text(out)]);
    assert_same(&checkpoint(out, ITERATIONS), &reference_checkpoint());
    assert_eq!(story(out), story(reference()));
}

#[test]
fn an_evaluation_runs_beside_a_training() {
    let folder = folder();
    let out = folder.path();
    let args = ["--max-iters", "5000", "--set", "run.keep=3", "--out", text(out)];
    let mut child =
        command("train", &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, || !checkpoints::list(out).is_empty());
    let output = run("eval", &["--checkpoint", text(out)]);
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("mIoU"));
    assert!(ended.is_none(), "the training ended: {ended:?}");
}
