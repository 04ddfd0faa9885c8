//! Tests what a run does like the reference where no stored numbers look.

use std::path::Path;

use udass_raw::checkpoint::files;
use udass_raw::device::Device;
use udass_raw::nn::{BatchNormMode, Pass, Segmentor};
use udass_raw::ops;
use udass_raw::params::Weights;
use udass_raw::run::eval::inference::Predictor;
use udass_raw::tape::Tape;

use crate::support::{
    Contents, assert_same, checkpoint, config, events, folder, reference_checkpoint, run_in,
    succeed, text,
};

fn train(out: &Path, more: &[&str]) {
    let sets = ["--set", "device.threads=1", "--set", "data.workers=1", "--out", text(out)];
    succeed("train", &[&sets[..], more].concat());
}

/// A run that starts later from weights alone has moments of zero, so its first update is AdamW's
/// first, whatever the iteration.
#[test]
fn the_bias_correction_counts_from_where_the_moments_start() {
    let folder = folder();
    let weights = folder.path().join("student.safetensors");
    let reference = reference_checkpoint();
    let words = ["weights", "convert", text(&reference), text(&weights)];
    let output = run_in(folder.path(), &[&words[..], &["--weights", "student"]].concat());
    assert!(output.status.success());
    let out = folder.path().join("run");
    let start = ["--checkpoint", text(&weights), "--start-iteration", "5"];
    train(&out, &[&start[..], &["--max-iters", "6"]].concat());

    let before = Contents::of(&weights).f32("backbone.norm1.weight");
    let after = Contents::of(&checkpoint(&out, 6));
    assert_eq!(after.strings["optimizer.first"], "5");
    let part = |prefix: &str| after.f32(&format!("{prefix}backbone.norm1.weight"));
    let (values, first, second) =
        (part("model."), part("optimizer.exp_avg."), part("optimizer.exp_avg_sq."));
    let lr = events(&out, "iteration")[0]["lr"].as_f64().unwrap();
    for (i, &was) in before.iter().enumerate() {
        // Norms have no weight decay.
        let mean = first[i] as f64 / (1.0 - 0.9);
        let deviation = (second[i] as f64 / (1.0 - 0.999)).sqrt();
        let expected = was as f64 - lr * mean / (deviation + 1e-8);
        assert!((values[i] as f64 - expected).abs() < 1e-3 * lr, "{i}: {was} to {}", values[i]);
    }

    // The count survives a resume.
    train(&out, &["--resume", "--max-iters", "8"]);
    let whole = folder.path().join("whole");
    train(&whole, &[&start[..], &["--max-iters", "8"]].concat());
    assert_same(&checkpoint(&out, 8), &checkpoint(&whole, 8));
    assert_eq!(Contents::of(&checkpoint(&whole, 8)).strings["optimizer.first"], "5");

    // With moments, it goes on: they hold eight updates, and the new run calls the next one 3.
    let renumbered = folder.path().join("renumbered");
    let from =
        ["--checkpoint", text(&reference_checkpoint()), "--start-iteration", "3"].map(String::from);
    let from: Vec<&str> = from.iter().map(String::as_str).collect();
    train(&renumbered, &[&from[..], &["--max-iters", "4"]].concat());
    assert_eq!(Contents::of(&checkpoint(&renumbered, 4)).strings["optimizer.first"], "-5");
}

#[test]
fn the_best_checkpoint_is_kept() {
    let folder = folder();
    let out = folder.path().join("run");
    let often = ["--set", "run.eval_interval=1", "--set", "run.checkpoint_interval=3"];
    train(&out, &[&often[..], &["--max-iters", "4"]].concat());
    let best = |out: &Path| {
        let scores = events(out, "evaluation").into_iter();
        let scores =
            scores.map(|e| (e["mIoU"].as_f64().unwrap(), e["iteration"].as_u64().unwrap()));
        scores.max_by(|a, b| a.partial_cmp(b).unwrap()).unwrap().1
    };
    let kept = Contents::of(&files::best(&out));
    assert_eq!(kept.strings["iteration"], best(&out).to_string());
    // The newest alone is kept otherwise, and it is what a run's folder stands for.
    assert_eq!(files::list(&out).len(), 1);
    assert_eq!(files::resolve(&out).unwrap(), checkpoint(&out, 4));

    // A resumed run knows what was best before.
    train(&out, &[&often[..], &["--resume", "--max-iters", "8"]].concat());
    let whole = folder.path().join("whole");
    let all = ["--set", "run.keep=0", "--max-iters", "8"];
    train(&whole, &[&often[..], &all[..]].concat());
    assert_same(&files::best(&out), &files::best(&whole));
    assert_eq!(best(&out), best(&whole));
    let kept: Vec<u64> = files::list(&whole).into_iter().map(|(iteration, _)| iteration).collect();
    assert!([3, 6, 8].iter().all(|saved| kept.contains(saved)), "{kept:?}");
    assert!(kept.contains(&best(&whole)), "{kept:?}");

    let without = folder.path().join("without");
    train(&without, &[&often[..], &["--max-iters", "2", "--set", "run.keep_best=false"]].concat());
    assert!(!files::best(&without).exists());
}

#[test]
fn an_early_end_leaves_the_schedule_alone() {
    let folder = folder();
    let out = folder.path().join("run");
    let follows = ["--set", "schedule.end=0", "--set", "run.max_iters=20", "--max-iters", "1"];
    train(&out, &follows);
    let config = &events(&out, "start")[0]["config"];
    assert_eq!((&config["run"]["max_iters"], &config["schedule"]["end"]), (&1.into(), &20.into()));
}

/// `mask_lambda` scales the fused loss of the masked pass, and leaves the detail loss alone.
#[test]
fn the_mask_weight_leaves_the_detail_loss_alone() {
    let folder = folder();
    let run = |name: &str, set: &str| {
        let out = folder.path().join(name);
        train(&out, &["--max-iters", "1", "--set", set]);
        out
    };
    let loss =
        |out: &Path, name: &str| events(out, "iteration")[0]["losses"][name].as_f64().unwrap();
    let (one, three) = (run("one", "mask.weight=1"), run("three", "mask.weight=3"));
    let (main, detail) = ("masked.decode.loss_seg", "masked.decode.hr.loss_seg");
    assert!(loss(&one, main) > 0.0 && loss(&one, detail) > 0.0);
    assert!((loss(&three, main) / loss(&one, main) - 3.0).abs() < 1e-5);
    assert_eq!(loss(&three, detail), loss(&one, detail));
    // Without the fused loss, the detail loss still has a gradient.
    let (zero, off) = (run("zero", "mask.weight=0"), run("off", "mask.enabled=false"));
    let moment = |out: &Path| {
        Contents::of(&checkpoint(out, 1)).f32("optimizer.exp_avg.backbone.patch_embed1.proj.weight")
    };
    assert_ne!(moment(&zero), moment(&off));
}

/// MIC's ablations (its table 7): labels of the student itself, and no weight by confidence.
#[test]
fn masked_images_can_have_labels_of_their_own() {
    let folder = folder();
    let run = |name: &str, sets: &[&str]| {
        let out = folder.path().join(name);
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        train(&out, &[&["--max-iters", "3"][..], &sets].concat());
        let losses = events(&out, "iteration").into_iter();
        let name = "masked.decode.loss_seg";
        losses.map(|line| line["losses"][name].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    // The teacher starts as a copy of the student and then falls behind.
    let (teacher, student) = (run("teacher", &[]), run("student", &["mask.labels=student"]));
    assert_eq!(teacher[0], student[0]);
    assert_ne!(teacher[2], student[2]);
    // No pixel is as confident as this, so that none counts unless all do.
    let unsure = "pseudo_label.threshold=1";
    assert_eq!(run("unsure", &[unsure]), [0.0; 3]);
    let all = run("all", &[unsure, "mask.confidence_weight=false"]);
    assert!(all.iter().all(|&loss| loss > 0.0), "{all:?}");
}

/// MIC's supervised variant (its table 9): masked source images, and no target at all.
#[test]
fn masking_works_without_a_teacher() {
    let folder = folder();
    let out = folder.path().join("run");
    let masked = ["--method", "source_only", "--set", "mask.enabled=true"];
    train(&out, &[&masked[..], &["--set", "mask.images=source", "--max-iters", "1"]].concat());
    let losses = &events(&out, "iteration")[0]["losses"];
    let names: Vec<&String> = losses.as_object().unwrap().keys().collect();
    assert_eq!(names, ["decode.loss_seg", "masked.decode.loss_seg"]);
    assert!(names.iter().all(|name| losses[*name].as_f64().unwrap() > 0.0));
}

/// HRDA's ablations: scales that count equally, and windows side by side.
#[test]
fn the_scales_can_be_averaged() {
    let folder = folder();
    let out = folder.path().join("run");
    let average =
        ["--set", "network.hrda.attention=average", "--set", "network.hrda.overlap=false"];
    train(&out, &[&average[..], &["--max-iters", "1"]].concat());
    let saved = Contents::of(&checkpoint(&out, 1));
    assert!(!saved.tensors.keys().any(|name| name.contains("scale_attention")));

    // Logits are the mean of the detail's and the upsampled context's; both heads are one here.
    let config = config(&["network.hrda.attention=average", "network.hrda.overlap=false"]);
    let device = Device::host(2).unwrap();
    let network = Segmentor::new(&config.network).unwrap();
    let mut weights = Weights::new(&device, network.spec(), false).unwrap();
    weights.initialize(&device, 3).unwrap();
    let pixels: Vec<f32> = (0..64 * 64 * 3).map(|i| (i as f32 * 0.37).sin()).collect();
    let image = device.upload(&[1, 64, 64, 3], &pixels).unwrap();
    let tape = Tape::inference(&device);
    let (weights, batch_norm) = (&weights, BatchNormMode::Eval);
    let pass = Pass { tape: &tape, weights, batch_norm, dropout_rng: None };
    let parts = network.logits_in_parts(&pass, &image).unwrap();
    let hrda = parts.hrda.unwrap();
    assert_eq!(hrda.boxes, [[0, 32, 0, 32], [0, 32, 32, 64], [32, 64, 0, 32], [32, 64, 32, 64]]);
    let size = (2 * hrda.low.dim(1), 2 * hrda.low.dim(2));
    let low = device.read_f32(&ops::resize(&tape, &hrda.low, size, None).unwrap()).unwrap();
    let high = device.read_f32(&hrda.high).unwrap();
    let fused = device.read_f32(&parts.fused).unwrap();
    for (i, fused) in fused.iter().enumerate() {
        assert!((fused - (low[i] + high[i]) / 2.0).abs() < 1e-5, "{i}");
    }
}

/// HRDA's ablations: a context as large as the crop, or a quarter as large.
#[test]
fn the_context_can_have_other_scales() {
    let folder = folder();
    let out = folder.path().join("run");
    train(&out, &["--set", "network.hrda.context_scale=1", "--max-iters", "1"]);
    assert!(events(&out, "iteration")[0]["losses"]["decode.loss_seg"].as_f64().unwrap() > 0.0);
    for (scale, side) in [("1", 32), ("0.5", 16), ("0.25", 8)] {
        let scale = format!("network.hrda.context_scale={scale}");
        let config = config(&[&scale, "data.crop=128", "eval.window=128", "quadmix.enabled=false"]);
        let device = Device::host(2).unwrap();
        let network = Segmentor::new(&config.network).unwrap();
        let mut weights = Weights::new(&device, network.spec(), false).unwrap();
        weights.initialize(&device, 3).unwrap();
        let image = device.zeros(&[1, 128, 128, 3], device.real()).unwrap();
        let tape = Tape::inference(&device);
        let (weights, batch_norm) = (&weights, BatchNormMode::Eval);
        let pass = Pass { tape: &tape, weights, batch_norm, dropout_rng: None };
        let parts = network.logits_in_parts(&pass, &image).unwrap();
        assert_eq!(parts.hrda.unwrap().low.shape(), [1, side, side, 19], "{scale}");
        assert_eq!(parts.fused.shape(), [1, 32, 32, 19], "{scale}");
    }
}

/// 1080 rows under windows of 1024 rows: the second window starts at row 56, not at 64, as if the
/// image were padded to 1088.
#[test]
fn sliding_windows_end_at_the_edge_of_the_image() {
    const WINDOW: usize = 64;
    for hrda in ["network.hrda.enabled=true", "network.hrda.enabled=false"] {
        let config = config(&[hrda]);
        let device = Device::host(2).unwrap();
        let network = Segmentor::new(&config.network).unwrap();
        let mut weights = Weights::new(&device, network.spec(), false).unwrap();
        weights.initialize(&device, 3).unwrap();
        let predictor = Predictor::new(&device, &network, &weights, &config.eval).unwrap();
        let rows = |from: usize, to: usize| -> Vec<u8> {
            let byte = |i: usize| (i * i / 7 + 31 * i) as u8;
            (from * WINDOW * 3..to * WINDOW * 3).map(byte).collect()
        };
        let logits = |rgb: &[u8]| {
            let height = rgb.len() / (3 * WINDOW);
            device.read_f32(&predictor.logits(rgb, WINDOW, height).unwrap()).unwrap()
        };
        let whole = logits(&rows(0, 68));
        let (first, second) = (logits(&rows(0, 64)), logits(&rows(4, 68)));
        let row = whole.len() / 68;
        // Batches of another size sum in another order.
        let close = |a: &[f32], b: &[f32]| {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{hrda}");
        };
        close(&whole[..4 * row], &first[..4 * row]);
        close(&whole[64 * row..], &second[60 * row..]);
    }
}
