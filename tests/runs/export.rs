//! Tests `export` on a run's checkpoint.

use std::fs;
use std::path::Path;
use std::process::Command;

use udass_raw::checkpoint::writer::write_numbers;

use crate::support::{folder, reference, run_in, stderr, succeed, text, world};

#[test]
fn a_run_is_exported_and_computes_what_predict_computes() {
    let folder = folder();
    let file = folder.path().join("run.onnx");
    let words = ["export", text(reference()), "--out", text(&file), "--size", "128x64"];
    let output = run_in(folder.path(), &words);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), text(&file));
    let bytes = fs::read(&file).unwrap();
    let holds = |part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
    for part in
        ["\"road\",\"sidewalk\"", "[128,64,128]", "quadmix", "decode_head.head.conv_seg.weight"]
    {
        assert!(holds(part), "{part}");
    }

    let images = world().join("cityscapes/leftImg8bit/val");
    let image = glob::glob(&format!("{}/*/*.png", images.display())).unwrap().next().unwrap();
    let image = image.unwrap();
    let logits = folder.path().join("run.0.logits.safetensors");
    let whole = ["--set", "eval.window=0", "--device", "host"];
    let checkpoint = ["--checkpoint", text(reference()), "--out", text(folder.path())];
    let args = [&[text(&image), "--logits", text(&logits)], &checkpoint[..], &whole[..]].concat();
    succeed("predict", &args);
    let pixels = image::open(&image).unwrap().to_rgb8();
    assert_eq!(pixels.dimensions(), (128, 64));
    let numbers = pixels.into_raw().into_iter().map(f32::from).collect();
    let path = folder.path().join("run.0.image.safetensors");
    write_numbers(&path, "image", vec![1, 64, 128, 3], numbers).unwrap();
    let Some(python) = std::env::var_os("UDASS_ONNX_PYTHON") else {
        return println!("UDASS_ONNX_PYTHON is not set, so no other program reads the file");
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/onnx/compare.py");
    let output = Command::new(python).args([script, text(&file)]).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{}", stderr(&output));
}

#[test]
fn an_exported_file_predicts_by_itself_what_its_run_predicts() {
    let folder = folder();
    let file = folder.path().join("street.safetensors");
    let done = |words: &[&str]| {
        let output = run_in(folder.path(), words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    };
    done(&["export", text(reference()), "--out", text(&file)]);
    let images = world().join("cityscapes/leftImg8bit/val");
    let image = glob::glob(&format!("{}/*/*.png", images.display())).unwrap().next().unwrap();
    let image = image.unwrap();
    let logits = |checkpoint: &Path| {
        let logits = folder.path().join("logits.safetensors");
        let out = folder.path().join("out");
        let files = ["--checkpoint", text(checkpoint), "--out", text(&out)];
        let words = ["predict", text(&image), "--logits", text(&logits), "--device", "host"];
        done(&[&words[..], &files[..]].concat());
        fs::read(logits).unwrap()
    };
    assert!(logits(&file) == logits(reference()));

    let half = folder.path().join("half.safetensors");
    done(&["export", text(reference()), "--out", text(&half), "--precision", "bf16"]);
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(bytes(&half) < bytes(&file) * 6 / 10, "{} of {}", bytes(&half), bytes(&file));
    logits(&half);

    for (name, words, problem) in [
        ("a.safetensors", ["--size", "128x64"], "takes images of every size"),
        ("a.onnx", ["--precision", "f16"], "ONNX graphs are written in f32"),
        ("a.pt", ["--precision", "f32"], "a name that ends in .onnx or .safetensors"),
    ] {
        let out = folder.path().join(name);
        let words = [&["export", text(reference()), "--out", text(&out)], &words[..]].concat();
        let output = run_in(folder.path(), &words);
        assert!(!output.status.success() && stderr(&output).contains(problem), "{output:?}");
        assert!(!out.exists());
    }
}
