//! Tests event files: they change nothing that a run computes, and no error of theirs ends it.
//! tests/event_files.py reads them by TensorBoard's own reader.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use udass_raw::run::train::tensorboard::{SavedImage, last_images};

use crate::faults::fault_library;
use crate::support::{
    ITERATIONS, assert_same, checkpoint, command, events, folder, reference, reference_checkpoint,
    stderr, succeed, text,
};

fn event_files(out: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = paths.filter(|path| text(path).contains(".tfevents.")).collect();
    found.sort();
    found
}

fn steps(images: &[SavedImage]) -> BTreeMap<&str, u64> {
    images.iter().map(|image| (image.tag.as_str(), image.step)).collect()
}

#[test]
fn a_run_that_is_looked_at_computes_the_same_bits() {
    let folder = folder();
    let out = folder.path();
    let train = |iterations: &str, more: &[&str]| {
        let sets = ["--set", "run.image_interval=1", "--max-iters", iterations];
        succeed("train", &[&sets[..], &["--out", text(out)], more].concat())
    };
    train("6", &[]);
    let images = last_images(out);
    let shown = ["source", "target", "mixed_source", "mixed_target", "masked"];
    let expected: BTreeMap<String, u64> =
        shown.iter().map(|name| (format!("images/{name}"), 6)).collect();
    let mut expected: BTreeMap<&str, u64> =
        expected.iter().map(|(tag, step)| (tag.as_str(), *step)).collect();
    // The iterations before QuadMix.
    expected.insert("images/mixed", 4);
    assert_eq!(steps(&images), expected);
    for image in &images {
        let picture = image::load_from_memory(&image.bytes).unwrap().to_rgb8();
        let panels = if image.tag == "images/target" { 3 } else { 2 };
        assert_eq!(picture.dimensions(), (64 * panels, 2 * 64), "{}", image.tag);
    }

    // Image and label of the source pass are those that the loader makes.
    let config = crate::support::config(&[]);
    let mut loader = udass_raw::data::loader::Loader::new(&config, 5).unwrap();
    let batch = loader.next().unwrap();
    let source = images.iter().find(|image| image.tag == "images/source").unwrap();
    let picture = image::load_from_memory(&source.bytes).unwrap().to_rgb8();
    let classes = udass_raw::data::classes::Classes::new(&config.dataset);
    for (x, y) in [(0, 0), (63, 0), (17, 40), (5, 127), (60, 100)] {
        let at = (y * 64 + x) as usize;
        assert_eq!(picture.get_pixel(x, y).0, batch.source.rgb[3 * at..3 * at + 3], "{x}, {y}");
        let color = classes.color(batch.source.label[at]).unwrap_or_default();
        assert_eq!(picture.get_pixel(64 + x, y).0, color, "{x}, {y}");
    }

    train("8", &["--resume"]);
    assert_same(&checkpoint(out, ITERATIONS), &reference_checkpoint());
    assert_eq!(event_files(out).len(), 2);
    assert_eq!(event_files(reference()).len(), 1, "they are on by default");
    let losses = |out: &Path| -> Vec<_> {
        events(out, "iteration").iter().map(|line| line["losses"].clone()).collect()
    };
    assert_eq!(losses(out), losses(reference()));
}

#[test]
fn images_of_iterations_that_run_again_are_those_of_the_last_time() {
    let folder = folder();
    let out = folder.path();
    let train = |iterations: &str, interval: &str, more: &[&str]| {
        let interval = format!("run.image_interval={interval}");
        let words = ["--set", &interval, "--max-iters", iterations, "--out", text(out)];
        succeed("train", &[&words[..], more].concat())
    };
    train("5", "1", &[]);
    fs::remove_file(checkpoint(out, 5)).unwrap();
    let images = last_images(out);
    assert_eq!(steps(&images)["images/source"], 5);
    // As if iteration 4 had been the last one that was saved.
    let folder = crate::support::folder();
    let earlier = folder.path();
    succeed("train", &["--max-iters", "4", "--out", text(earlier)]);
    fs::copy(checkpoint(earlier, 4), checkpoint(out, 4)).unwrap();
    train("6", "100", &["--resume"]);
    let images = last_images(out);
    assert_eq!(steps(&images)["images/source"], 4, "that of iteration 5 is void");
}

#[test]
fn an_error_of_an_event_file_is_told_and_ends_nothing_else() {
    let folder = folder();
    let root = folder.path().canonicalize().unwrap();
    let list = root.join("steps");
    let train = |out: &Path, variables: &[(&str, &str)]| {
        let words = ["--set", "run.image_interval=1", "--max-iters", "2", "--out", text(out)];
        let mut command = command("train", &words);
        command.env("LD_PRELOAD", fault_library()).env("FAULT_ROOT", out);
        command.envs(variables.iter().copied()).output().unwrap()
    };
    let whole = root.join("whole");
    let output = train(&whole, &[("FAULT_STEPS", text(&list))]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(!told.contains("TensorBoard"), "{told}");
    let steps = fs::read_to_string(&list).unwrap();
    // Nobody learns of a file that could not be closed.
    let mine = |step: &str| step.contains("tfevents") && !step.starts_with("Close");
    let mine: Vec<(usize, &str)> =
        steps.lines().enumerate().filter(|(_, step)| mine(step)).collect();
    // Its creation, two records of its beginning, two of each iteration, and a sync.
    assert_eq!(mine.len(), 8, "{mine:?}");
    for (turn, (index, step)) in mine.into_iter().enumerate() {
        let out = root.join(turn.to_string());
        let output = train(&out, &[("FAULT", &format!("full Any {index}"))]);
        let told = stderr(&output);
        assert!(output.status.success(), "{step}: {told}");
        let warnings: Vec<&str> =
            told.lines().filter(|line| line.starts_with("warning: ")).collect();
        let [warning] = warnings[..] else { panic!("{step}: {told}") };
        assert!(warning.contains(text(&out)) && warning.contains("space"), "{warning}");
        assert!(warning.contains("TensorBoard gets no more of this run"), "{warning}");
        assert_same(&checkpoint(&out, 2), &checkpoint(&whole, 2));
    }
}

#[test]
fn it_can_be_switched_off() {
    let folder = folder();
    let out = folder.path();
    let sets = ["--set", "run.tensorboard=false", "--set", "run.image_interval=1"];
    succeed("train", &[&sets[..], &["--max-iters", "1", "--out", text(out)]].concat());
    assert_eq!(event_files(out), [""; 0].map(PathBuf::from));
    assert!(last_images(out).is_empty());
}
