//! Tests `udass-raw profile`: what it counts, what it writes, and that a browser renders its page.

#[path = "support/browser.rs"]
mod browser;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use udass_raw::config::{Config, METHODS};
use udass_raw::device::{Device, Precision};
use udass_raw::nn::Segmentor;
use udass_raw::run::profile::kernel::Kernel;
use udass_raw::run::profile::model::Model;
use udass_raw::run::profile::{Predicted, Rates, predict};

/// A small iteration with all four training passes.
const SMALL: [&str; 7] = [
    "toy_vit",
    "--set",
    "data.crop=64",
    "--set",
    "network.hrda.detail_crop=32",
    "--set",
    "device.kind=host",
];

fn profile(folder: &Path, args: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_udass-raw");
    let mut command = Command::new(binary);
    command.arg("profile").args(SMALL).args(args).current_dir(folder);
    command.output().unwrap()
}

fn told(folder: &Path, args: &[&str]) -> String {
    let output = profile(folder, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let output = profile(folder, args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn config() -> Config {
    let changes: Vec<String> =
        SMALL.iter().filter(|word| word.contains('=')).map(|&word| word.into()).collect();
    Config::load_with("toy_vit", None, &changes).unwrap()
}

fn numbers(list: &Value, key: &str) -> f64 {
    list.as_array().unwrap().iter().map(|row| row[key].as_f64().unwrap()).sum()
}

fn texts<'a>(list: &'a Value, key: &str) -> BTreeSet<&'a str> {
    list.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap()).collect()
}

#[test]
fn every_call_is_charged_to_kernel_layer_and_pass() {
    let folder = TempDir::new().unwrap();
    let text = told(folder.path(), &["--samples", "1", "--json", "p.json", "--trace", "t.json"]);
    for expected in ["attention_backward", "backbone stage 3", "mixed_target backward", "of bound"]
    {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.path().join(name)).unwrap()).unwrap()
    };
    let json = read("p.json");
    let calls = &json["calls"];

    let passes = texts(calls, "pass");
    for pass in ["source", "teacher", "mix", "mixed", "mixed_target", "masked", "optimizer"] {
        assert!(passes.contains(pass), "{pass} in {passes:?}");
    }
    // A layer is a module with parameters, named by them, or a part of the network that contains
    // several.
    let network = Segmentor::new(&config().network).unwrap();
    let parameters: Vec<&str> =
        network.spec().params().iter().map(|param| param.name.as_str()).collect();
    let layers = texts(calls, "layer");
    for layer in layers.iter().filter(|layer| !layer.is_empty()) {
        let inside = format!("{layer}.");
        assert!(parameters.iter().any(|name| name.starts_with(&inside)), "{layer}");
    }
    for name in &parameters {
        let layer = name.rsplit_once('.').unwrap().0;
        // The reference's state dict contains a classifier that HRDA does not use, and its norm.
        let used = !layer.ends_with("conv_seg") || layers.contains(layer);
        assert!(layers.contains(layer) || !used, "nothing is charged to {layer}");
    }
    // Each grouping contains every call once.
    let count = calls.as_array().unwrap().len() as f64;
    for group in ["by_pass", "by_stage", "by_kernel", "by_shape", "by_layer"] {
        assert_eq!(numbers(&json[group], "calls"), count, "{group}");
        for key in ["seconds", "bytes", "flops", "gap_seconds"] {
            let (all, parts) = (numbers(calls, key), numbers(&json[group], key));
            assert!((all - parts).abs() <= 1e-9 * all.abs().max(1e-9), "{group} {key}");
        }
    }
    // Calls do not overlap, and together with the gaps between them they make up the total.
    let whole = json["profiled_seconds"].as_f64().unwrap();
    let sum = numbers(calls, "seconds") + numbers(calls, "gap_seconds");
    assert!((whole - sum).abs() < 1e-6, "{whole} {sum}");
    assert!(calls.as_array().unwrap().iter().all(|call| call["gap_seconds"].as_f64() >= Some(0.0)));

    let trace = read("t.json");
    let events = trace["traceEvents"].as_array().unwrap();
    let kernels = events.iter().filter(|event| event["cat"] == "kernel").count();
    assert_eq!(kernels as f64, count);
    assert!(events.iter().any(|e| e["cat"] == "layer" && e["name"] == "backbone.block1.0.attn"));
    assert!(events.iter().all(|e| e["ph"] == "M" || e["dur"].as_f64() >= Some(0.0)));
}

#[test]
fn a_prediction_says_that_it_is_one() {
    let folder = TempDir::new().unwrap();
    let rates = ["--dry", "--memory-rate", "3e12", "--matrix-rate", "4e14"];
    let text = told(folder.path(), &rates);
    assert!(text.contains("modeled, not measured"), "{text}");
    assert!(!text.contains("of bound"), "{text}");
    let text = refused(folder.path(), &["--dry"]);
    assert!(text.contains("--memory-rate"), "{text}");
    let text = refused(folder.path(), &["--dry", "--memory-rate", "0", "--matrix-rate", "1"]);
    assert!(text.contains("expected a number above 0"), "{text}");
}

#[test]
fn an_expected_time_stands_beside_the_floor() {
    let folder = TempDir::new().unwrap();
    let model = ["--dry", "--device-model", "h200", "--json", "p.json", "--html", "p.html"];
    let args = [&model[..], &["--set", "device.precision=bf16"]].concat();
    let text = told(folder.path(), &args);
    for expected in ["modeled, not measured", "NVIDIA H200 SXM expected", "at least", "of bound"] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let page = fs::read_to_string(folder.path().join("p.html")).unwrap();
    assert!(page.contains("<th>at least</th>"));
    let json: Value =
        serde_json::from_slice(&fs::read(folder.path().join("p.json")).unwrap()).unwrap();
    let calls = json["calls"].as_array().unwrap();
    let number = |of: &Value, key: &str| of[key].as_f64().unwrap();
    // No call is faster than its floor, or than a launch. What crosses to the device is not held to
    // the floor of its memory.
    for call in calls {
        let (expected, bound) = (number(call, "expected_seconds"), number(call, "bound_seconds"));
        assert!(expected > bound && expected >= 2e-6, "{call}");
    }
    let sum: f64 = calls.iter().map(|call| number(call, "expected_seconds")).sum();
    let beside: f64 = (calls.iter().filter(|call| call["overlaps"] == true))
        .map(|call| number(call, "expected_seconds"))
        .sum();
    assert!(beside > 0.0);
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b, "{a} {b}");
    close(number(&json, "expected_sum_seconds"), sum);
    close(number(&json, "expected_seconds"), (sum - beside).max(beside));
    close(numbers(&json["by_kernel"], "seconds"), sum);
    close(numbers(&json["by_kernel"], "bound_seconds"), number(&json, "bound_seconds"));

    let text = refused(folder.path(), &["--dry", "--device-model", "h201"]);
    assert!(
        text.contains("`h201` is unknown; the choices are a100, h100, h200, rtx4090"),
        "{text}"
    );
    let text = refused(folder.path(), &["--dry", "--device-model", "h200", "--memory-rate", "1"]);
    assert!(text.contains("cannot be used with"), "{text}");
}

/// What the constants of `machines.toml` and the counts of `kernels.toml` say of whole iterations.
/// They change with the kernels; a constant of a machine changes with a measurement.
#[test]
fn iterations_take_as_long_as_their_machine_code_says() {
    for (preset, change, least, most) in [
        ("gta_vit", "network.batch_student_passes=false", 118.8, 145.2),
        ("gta_vit", "network.batch_student_passes=true", 104.4, 127.6),
        ("gta_cnn", "network.batch_student_passes=false", 126.0, 154.0),
    ] {
        let changes = ["device.precision=bf16".into(), change.into()];
        let config = Config::load_with(preset, None, &changes).unwrap();
        let model = Model::new("h200", Precision::Bf16).unwrap();
        let profile = predict(&config, preset, Predicted::Expected(&model)).unwrap();
        let expected = 1e3 * profile.modeled.unwrap().seconds();
        assert!((least..most).contains(&expected), "{preset} with {change}: {expected} ms");
    }
}

#[test]
fn every_gpu_and_precision_has_an_expectation() {
    for machine in ["a100", "h100", "h200", "rtx4090"] {
        for (precision, name) in
            [(Precision::F32, "f32"), (Precision::Tf32, "tf32"), (Precision::Bf16, "bf16")]
        {
            for preset in ["toy_vit", "toy_cnn"] {
                let changes = [format!("device.precision={name}")];
                let config = Config::load_with(preset, None, &changes).unwrap();
                let model = Model::new(machine, precision).unwrap();
                let profile = predict(&config, preset, Predicted::Expected(&model)).unwrap();
                assert!(profile.modeled.unwrap().seconds() > profile.profile.seconds * 0.5);
            }
        }
    }
}

#[test]
fn every_method_has_its_passes() {
    let rates = Rates { memory: 1e12, matrix: 1e14 };
    for preset in ["toy_vit", "toy_cnn"] {
        for method in METHODS {
            let config = Config::load_with(preset, Some(method), &[]).unwrap();
            let calls = predict(&config, preset, Predicted::Bound(rates)).unwrap().profile.calls;
            let has = |scope: &str| calls.iter().any(|call| call.place.scope == scope);
            assert!(has("source") && has("optimizer"), "{preset} {method}");
            assert_eq!(
                has("teacher") && has("mixed"),
                method != "source_only",
                "{preset} {method}"
            );
            assert_eq!(has("masked"), ["mic", "quadmix"].contains(&method), "{preset} {method}");
            assert_eq!(has("mixed_target"), method == "quadmix", "{preset} {method}");
        }
    }
}

#[test]
fn every_kernel_of_an_iteration_runs_alone() {
    let config = config();
    let device = Device::host(1).unwrap();
    let rates = Rates { memory: 1e9, matrix: 1e9 };
    let profile = predict(&config, "toy_vit", Predicted::Bound(rates)).unwrap().profile;
    let kernels: BTreeSet<&str> = (profile.calls.iter())
        .filter_map(|call| match &call.work {
            udass_raw::device::profile::Work::Kernel(launch) => Some(launch.kernel.name),
            _ => None,
        })
        .collect();
    assert!(kernels.len() > 30, "{kernels:?}");
    for kernel in kernels {
        Kernel::find(&config, kernel, None).unwrap().once(&device).unwrap();
    }
}

#[test]
fn a_kernel_alone_is_chosen_by_name_and_shape() {
    let folder = TempDir::new().unwrap();
    let quick = [&SMALL_MEMORY[..], &["--kernel", "attention_forward"]].concat();
    let text = told(folder.path(), &quick);
    assert!(text.starts_with("attention_forward ") && text.contains(" times with cold"), "{text}");
    let text = refused(folder.path(), &["--kernel", "attention"]);
    assert!(
        text.contains("no launch of an iteration has kernel attention; the choices are"),
        "{text}"
    );
    assert!(text.contains("attention_forward, attention_keys_gradient"), "{text}");
    let text = refused(folder.path(), &["--kernel", "attention_forward", "--shape", "1x1"]);
    assert!(text.contains("has shape 1x1; the choices are"), "{text}");
}

#[test]
fn kernels_are_listed() {
    let folder = TempDir::new().unwrap();
    let text = told(folder.path(), &["--list"]);
    let line = text.lines().find(|line| line.trim_start().starts_with("hrda_fuse ")).unwrap();
    assert!(line.contains("kernels/hrda.cu:"), "{line}");
}

/// Few samples, on tensors and with a bound that do not have to be right.
const SMALL_MEMORY: [&str; 6] =
    ["--repeats", "2", "--seconds", "0.01", "--set", "device.memory_limit=400MiB"];

/// The numbers of a kernel as JSON.
fn measured(folder: &Path, args: &[&str]) -> Vec<Value> {
    told(folder, &[args, &["--json", "kernel.json"]].concat());
    serde_json::from_slice(&fs::read(folder.join("kernel.json")).unwrap()).unwrap()
}

#[test]
fn no_cold_kernel_is_faster_than_memory() {
    let folder = TempDir::new().unwrap();
    for kernel in ["add", "fill"] {
        let share = || {
            let quick = ["--repeats", "3", "--seconds", "0.1", "--kernel", kernel];
            let all = measured(folder.path(), &quick);
            assert_eq!((all.len(), &all[0]["caches"]), (1, &"cold".into()));
            all[0]["of_bound"].as_f64().unwrap()
        };
        // Another process may take the memory's bandwidth while the bound is measured.
        assert!((0..3).any(|_| (0.0..=1.0).contains(&share())), "{kernel}");
    }
}

#[test]
fn sizes_are_axes_and_tables_hold_every_launch() {
    let folder = TempDir::new().unwrap();
    let quick = [&SMALL_MEMORY[..], &["--hot", "--kernel", "normalize"]].concat();
    let axes = ["--axis", "data.crop=64,128", "--axis", "data.batch=1,2"];
    let files = ["--csv", "a.csv", "--markdown", "a.md"];
    let all = measured(folder.path(), &[&quick[..], &axes[..], &files[..]].concat());
    let on = |key: &str| all.iter().map(|one| one[key].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(on("data.crop"), ["64", "64", "128", "128"]);
    assert_eq!(on("data.batch"), ["1", "2", "1", "2"]);
    assert_eq!(on("caches"), ["hot"; 4]);
    let bytes: Vec<f64> = all.iter().map(|one| one["bytes"].as_f64().unwrap()).collect();
    // But for the mean and the deviation, which have three elements each.
    for (index, times) in [(1, 2.0), (2, 4.0), (3, 8.0)] {
        assert!((bytes[index] / bytes[0] - times).abs() < 0.01, "{bytes:?}");
    }
    assert!(all.iter().all(|one| one["sample_seconds"].as_array().unwrap().len() >= 2));
    let csv = fs::read_to_string(folder.path().join("a.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[0][..4], ["kernel", "data.crop", "data.batch", "shape"]);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    let markdown = fs::read_to_string(folder.path().join("a.md")).unwrap();
    assert_eq!(markdown.lines().count(), 6);

    let all = [&SMALL_MEMORY[..], &["--hot", "--kernel", "add", "--shape", "all"]].concat();
    assert!(measured(folder.path(), &all).len() > 1);
    let text = refused(folder.path(), &["--kernel", "add", "--axis", "crop=64"]);
    assert!(text.contains("expected KEY=A,B"), "{text}");
}

#[test]
fn a_kernel_is_compared_with_a_file_of_ones_own() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, body: &str| {
        let text = format!(
            "#include \"columns.cuh\"\nKERNEL(add, const T* a, const T* b, T* z, bool relu, int64_t n) {{\n\
             {body}\n}}\n"
        );
        fs::write(folder.path().join(name), text).unwrap();
    };
    let sum = "real(a[i]) + real(b[i])";
    write(
        "same.cu",
        &format!("GRID_LOOP(i, n) {{ real s = {sum}; z[i] = relu && s < 0 ? real(0) : s; }}"),
    );
    write("wrong.cu", &format!("GRID_LOOP(i, n) z[i] = {sum} + real(i == 3);"));
    write("broken.cu", "z[0] = undefined_name;");
    let quick = [&SMALL_MEMORY[..], &["--kernel", "add", "--against"]].concat();
    let against = |file: &str| measured(folder.path(), &[&quick[..], &[file]].concat()).remove(0);

    let same = against("same.cu");
    assert_eq!((&same["unequal_elements"], &same["largest_difference"]), (&0.into(), &0.0.into()));
    assert!(same["speedup"].as_f64().unwrap() > 0.0);
    assert!(!same["against_sample_seconds"].as_array().unwrap().is_empty());
    let wrong = against("wrong.cu");
    assert_eq!(wrong["unequal_elements"], 1);
    assert!((wrong["largest_difference"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{wrong}");

    let text = refused(folder.path(), &[&quick[..], &["broken.cu"]].concat());
    assert!(text.contains("broken.cu: does not compile"), "{text}");
    // The compiler's message has the line in the file.
    assert!(text.contains("broken.cu:3:") && text.contains("undefined_name"), "{text}");
    let text = refused(folder.path(), &[&quick[..], &["absent.cu"]].concat());
    assert!(text.contains("absent.cu"), "{text}");
}

#[test]
fn a_kernel_runs_once_for_other_profilers() {
    let folder = TempDir::new().unwrap();
    assert_eq!(told(folder.path(), &["--kernel", "add", "--once"]), "");
}

#[test]
fn a_browser_shows_the_page() {
    let folder = TempDir::new().unwrap();
    told(folder.path(), &["--samples", "1", "--html", "profile.html"]);
    let path = folder.path().join("profile.html");
    let page = fs::read_to_string(&path).unwrap();
    for elsewhere in ["http://", "https://", "src=", "@import", "href="] {
        assert!(!page.contains(elsewhere), "the page loads something: {elsewhere}");
    }
    let Some(shown) = browser::opened(folder.path(), &path) else { return };
    // The page's source has no boxes: its script creates them.
    let boxes = shown.matches(" title=\"").count();
    assert!(boxes > 100, "{boxes} boxes");
    assert!(shown.matches("class=\"row\"").count() > 5);
    for expected in [">backward</div>", ">decode_head</div>", "<circle"] {
        assert!(shown.contains(expected), "{expected}");
    }
}
