//! Whole runs of several processes: their checkpoints, logs and ends.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::Value;
use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::device::group::BatchNormOver;
use udass_raw::run::train::replay::replay;
use udass_raw::run::train::resume::ResumeOptions;
use udass_raw::run::train::signal::Stop;
use udass_raw::run::train::trainer::{End, Start, train_on};
use udass_raw::{Error, Result};

use crate::equal::config as configured;
use crate::fabric::{Fault, together, together_with};
use crate::support::{Contents, assert_same, checkpoint, events, folder, succeed, text, world};

/// Iterations of a run; QuadMix begins with the second.
const ITERATIONS: u64 = 5;
/// Single precision, in the losses of an iteration.
const TOLERANCE: f32 = 1e-4;

/// Returns a run of QuadMix with four images in each domain.
pub fn config(out: &Path, more: &[&str]) -> Config {
    let out = format!("run.out={}", text(out));
    let iterations = format!("run.max_iters={ITERATIONS}");
    let own =
        [&out[..], &iterations, "run.checkpoint_interval=2", "run.keep=0", "mask.images=both"];
    configured("toy_vit", "quadmix", 4, &[&own, more].concat())
}

fn device() -> Device {
    Device::host(1).unwrap()
}

fn run(processes: usize, config: &Config, start: &Start) -> Vec<Result<End>> {
    together(processes, BatchNormOver::All, device, |device| {
        train_on(device, config, start.clone(), &Stop::new(), &())
    })
}

#[track_caller]
fn finish(processes: usize, config: &Config, start: &Start) {
    let ends = run(processes, config, start);
    assert!(
        ends.iter().all(|end| matches!(end, Ok(End::Finished(_)))),
        "{:?}",
        ends[0].as_ref().err()
    );
}

/// Asserts that two checkpoints of double-precision runs are the same but for rounding: what is stored
/// in single precision differs by no more than its last bit.
#[track_caller]
fn assert_close(a: &Path, b: &Path) {
    let (a, b) = (Contents::of(a), Contents::of(b));
    assert!(a.tensors.keys().eq(b.tensors.keys()));
    for (name, (dtype, shape, bytes)) in &a.tensors {
        let (_, other_shape, other_bytes) = &b.tensors[name];
        assert_eq!(shape, other_shape, "{name}");
        if *dtype != Dtype::F32 {
            assert!(bytes == other_bytes, "{name}");
            continue;
        }
        for (a, b) in a.f32(name).into_iter().zip(b.f32(name)) {
            assert!((a - b).abs() <= f32::EPSILON * a.abs() + 1e-12, "{name}: {a}, {b}");
        }
    }
}

#[test]
fn a_run_repeats_its_bits_and_one_process_writes() {
    let (one, other) = (folder(), folder());
    finish(2, &config(one.path(), &[]), &Start::Weights);
    finish(2, &config(other.path(), &[]), &Start::Weights);
    assert_same(&checkpoint(one.path(), ITERATIONS), &checkpoint(other.path(), ITERATIONS));
    assert_eq!(fs::read_dir(one.path().join("checkpoints")).unwrap().count(), 3);
    assert_eq!(events(one.path(), "iteration").len() as u64, ITERATIONS);
    assert_eq!(events(one.path(), "machine")[0]["processes"], 2);
}

#[test]
fn a_run_is_the_same_whatever_the_number_of_processes_and_resumes_with_another() {
    let folders: [_; 4] = std::array::from_fn(|_| folder());
    let at = |index: usize| folders[index].path();
    let double = |processes, out: &Path, start: &Start| {
        let (config, device) = (config(out, &[]), || Device::host_f64().unwrap());
        let ends = together(processes, BatchNormOver::All, device, |device| {
            train_on(device, &config, start.clone(), &Stop::new(), &())
        });
        assert!(ends.iter().all(|end| matches!(end, Ok(End::Finished(_)))));
    };
    double(1, at(0), &Start::Weights);
    double(2, at(1), &Start::Weights);
    let end = |index| checkpoint(at(index), ITERATIONS);
    assert_close(&end(0), &end(1));
    assert_eq!(events(at(0), "machine")[0].get("processes"), None);

    // From the same checkpoint on, with more processes and with fewer.
    for (index, processes) in [(1, 2), (2, 4), (3, 1)] {
        fs::create_dir_all(at(index).join("checkpoints")).unwrap();
        for later in [ITERATIONS, 4] {
            let _ = fs::remove_file(checkpoint(at(index), later));
        }
        if index > 1 {
            fs::copy(checkpoint(at(1), 2), checkpoint(at(index), 2)).unwrap();
            fs::copy(at(1).join("log.jsonl"), at(index).join("log.jsonl")).unwrap();
        }
        double(processes, at(index), &Start::Resume(ResumeOptions::default()));
        assert_close(&end(1), &end(index));
    }
}

#[test]
fn a_request_to_one_process_stops_all_with_one_checkpoint() {
    let (whole, stopped) = (folder(), folder());
    finish(2, &config(whole.path(), &[]), &Start::Weights);
    let config = config(stopped.path(), &["run.checkpoint_interval=1000"]);
    let ends = together(2, BatchNormOver::All, device, |device| {
        let stop = Stop::new();
        if device.place().rank == 1 {
            stop.ask();
        }
        train_on(device, &config, Start::Weights, &stop, &())
    });
    assert!(ends.iter().all(|end| matches!(end, Ok(End::Stopped))));
    // The others learn it with the first iteration, and all end after the second.
    assert_same(&checkpoint(whole.path(), 2), &checkpoint(stopped.path(), 2));
    assert_eq!(fs::read_dir(stopped.path().join("checkpoints")).unwrap().count(), 1);
    finish(2, &config, &Start::Resume(ResumeOptions::default()));
    assert_same(&checkpoint(whole.path(), ITERATIONS), &checkpoint(stopped.path(), ITERATIONS));
}

#[test]
fn a_gradient_that_is_not_finite_in_one_process_fails_in_all_and_the_whole_batch_is_saved() {
    let (good, bad) = (folder(), folder());
    finish(2, &config(good.path(), &[]), &Start::Weights);
    let fault = Fault::NotFinite { iteration: 2 };
    let ends = together_with(fault, 2, BatchNormOver::All, device, |device| {
        train_on(device, &config(bad.path(), &[]), Start::Weights, &Stop::new(), &())
    });
    for end in ends {
        assert!(matches!(end, Err(Error::NotFinite(_))));
    }
    // The state before it is that of a run without a fault, and one process can run the whole batch.
    let dump = bad.path().join("not_finite/iteration_000002.safetensors");
    let (dumped, saved) = (Contents::of(&dump), Contents::of(&checkpoint(good.path(), 2)));
    assert!(saved.tensors.iter().all(|(name, tensor)| dumped.tensors[name] == *tensor));
    let replayed = replay(&dump, Some("host")).unwrap();
    assert!(!replayed.report.failed && replayed.gradients.is_empty());
    let logged = &events(good.path(), "iteration")[2]["losses"];
    for (name, value) in replayed.report.terms.iter().filter(|(name, _)| name.contains("loss")) {
        let logged = logged[name].as_f64().unwrap() as f32;
        assert!((value - logged).abs() <= TOLERANCE * logged.abs().max(1.0), "{name}");
    }
}

#[test]
fn a_process_whose_state_differs_is_named_before_it_is_saved() {
    let out = folder();
    let fault = Fault::Differs { iteration: 0 };
    let ends = together_with(fault, 2, BatchNormOver::All, device, |device| {
        train_on(device, &config(out.path(), &[]), Start::Weights, &Stop::new(), &())
    });
    for end in ends {
        let told = end.err().unwrap().to_string();
        assert!(told.starts_with("after 2 iterations the student of process 1 is not"), "{told}");
    }
    assert!(!checkpoint(out.path(), 2).exists());
}

#[test]
fn processes_share_an_evaluation_and_count_what_one_counts() {
    let out = folder();
    // The set has four images, which three processes do not share equally.
    for (processes, batch) in [(2, "data.batch=2"), (3, "data.batch=3")] {
        let _ = fs::remove_dir_all(out.path());
        let more = ["run.eval_interval=2", "run.max_iters=2", batch];
        let ends = run(processes, &config(out.path(), &more), &Start::Weights);
        let json = out.path().join("alone.json");
        let checkpoint = checkpoint(out.path(), 2);
        let args = ["--method", "quadmix", "--device", "host", "--json", text(&json)];
        succeed("eval", &[&args[..], &["--checkpoint", text(&checkpoint)]].concat());
        let alone: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        assert_eq!(alone["per_image"].as_array().unwrap().len(), 4);
        for end in ends {
            let report = match end {
                Ok(End::Finished(Some(report))) => report,
                other => panic!("{:?}", other.err()),
            };
            // As it is read from a file.
            let shared: Value = serde_json::from_str(&report.to_json().to_string()).unwrap();
            for key in ["confusion_matrix", "per_image", "classes", "data", "images", "pixels"] {
                assert_eq!(shared[key], alone[key], "{key} of {processes} processes");
            }
        }
        let logged = events(out.path(), "evaluation");
        assert_eq!(logged.len(), 1);
        assert_eq!(logged[0]["mIoU"], alone["mIoU"]);
    }
}

#[test]
fn what_processes_cannot_share_is_refused() {
    let out = folder();
    let told = |processes, config: &Config| {
        let mut ends = run(processes, config, &Start::Weights);
        ends.remove(0).err().unwrap().to_string()
    };
    let problem = told(3, &config(out.path(), &[]));
    assert!(problem.contains("data.batch = 4 cannot be split over 3 processes"), "{problem}");

    let contrast = config(out.path(), &["contrast.enabled=true", "network.projection=16"]);
    let problem = told(2, &contrast);
    assert!(problem.contains("contrast.enabled: class statistics are not shared"), "{problem}");

    let ends = together(2, BatchNormOver::All, device, |device| {
        let other = format!("seed={}", 1 + device.place().rank);
        let config = config(out.path(), &[&other]);
        train_on(device, &config, Start::Weights, &Stop::new(), &())
    });
    for end in ends {
        let problem = end.err().unwrap().to_string();
        assert!(problem.starts_with("the configuration of process 1 is not that of"), "{problem}");
    }
    assert!(!out.path().join("log.jsonl").exists());
}

#[test]
fn a_file_that_one_process_skips_is_known_to_all() {
    let out = folder();
    let bad = out.path().join("world");
    crate::support::copy_folder(world(), &bad);
    // Whatever is drawn first of the target.
    let images = bad.join("cityscapes/leftImg8bit/train");
    let city = fs::read_dir(&images).unwrap().next().unwrap().unwrap().path();
    let mut files: Vec<_> = fs::read_dir(city).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    fs::write(&files[3], "no image").unwrap();
    let target = format!("target.root={}", text(&bad.join("cityscapes")));
    let runs: Vec<_> = [1, 2]
        .iter()
        .map(|&processes| {
            let run = out.path().join(format!("{processes}"));
            let more = [&target[..], "data.max_bad_files=2", "run.max_iters=4"];
            finish(processes, &config(&run, &more), &Start::Weights);
            Contents::of(&checkpoint(&run, 4)).strings["skipped"].clone()
        })
        .collect();
    assert!(runs[0].contains(files[3].file_name().unwrap().to_str().unwrap()), "{}", runs[0]);
    assert_eq!(runs[0], runs[1]);
}
