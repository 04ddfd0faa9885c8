//! Runs that need more memory than they may have: an error that says what needs less.

use std::fs;
use std::process::Output;

use crate::support::*;

#[track_caller]
fn out_of_memory(output: &Output, parts: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{:?}: {told}", output.status);
    for part in [&["Less memory is needed with"], parts].concat() {
        assert!(told.contains(part), "{part:?} in: {told}");
    }
}

#[test]
fn the_hosts_memory_has_a_limit_in_training_evaluation_and_prediction() {
    let folder = folder();
    let out = folder.path().join("run");
    let limit = ["--device", "host", "--set", "device.memory_limit=4MiB"];
    let args = [&["--max-iters", "1", "--out", text(&out)], &limit[..]].concat();
    let of_the_limit = "left of the device's memory limit";
    out_of_memory(&run("train", &args), &[of_the_limit, "data.batch = 1 instead of 2"]);
    let args = [&["--checkpoint", text(reference())], &limit[..]].concat();
    out_of_memory(&run("eval", &args), &[of_the_limit, "eval.resize"]);
    // A share is one of the machine's memory.
    let share = ["--checkpoint", text(reference()), "--device", "host"];
    succeed("eval", &[&share[..], &["--set", "device.memory_limit=50%"]].concat());
}

#[test]
fn a_picture_of_a_few_bytes_and_millions_of_pixels_is_segmented_within_the_limit_or_refused() {
    let folder = folder();
    let picture = folder.path().join("large.png");
    let file = fs::File::create(&picture).unwrap();
    let mut encoder = png::Encoder::new(file, 8192, 8192);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.write_header().unwrap().write_image_data(&vec![0; 8192 * 8192 / 8]).unwrap();
    let out = folder.path().join("out");
    let args = [text(&picture), "--checkpoint", text(reference()), "--out", text(&out)];
    let limit = ["--device", "host", "--set", "device.memory_limit=1GiB"];
    out_of_memory(&run("predict", &[&args[..], &limit[..]].concat()), &["--resize"]);
    succeed("predict", &[&args[..], &limit[..], &["--resize", "128x128"]].concat());
    // One step of one pixel: millions of windows.
    let steps = ["--set", "eval.stride=1"];
    out_of_memory(&run("predict", &[&args[..], &steps[..]].concat()), &["windows of 64x64"]);
}
