//! Hashes of whole training runs: `cargo test --release --test hashes` prints them and compares
//! them with the ones recorded in tests/hashes.json.
//!
//! A change that only moves or renames code leaves every hash as it is. Each run is a toy preset
//! with one method, with the student's passes separate or batched, for a few iterations across the
//! switch to QuadMix. Two hashes describe it: one of the checkpoint's tensors (names, types, shapes
//! and bytes of student, teacher, moments and templates), one of the losses in its log.
//!
//! Rounding depends on the processor: the kernels are built for several instruction sets, and the
//! matmuls are blocked by the sizes of its caches. A record therefore belongs to a fingerprint of
//! both. On a processor without a record, the hashes are printed and compared with nothing but each
//! other (batched passes must change nothing where there is nothing to batch); to check a change
//! there, first record the hashes of the commit before it (`UDASS_RECORD_HASHES=1`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PRESETS: [&str; 2] = ["toy_vit", "toy_cnn"];
const METHODS: [&str; 6] = ["source_only", "dacs", "daformer", "hrda", "mic", "quadmix"];
const ITERATIONS: u64 = 4;

/// Every training feature at the smallest size: dropout, jitter and blur in every iteration, and a
/// threshold low enough that a random network's pseudo-labels count and are pasted.
const SETTINGS: &[&str] = &[
    "source.fit=[128, 70]",
    "target.fit=[128, 64]",
    "data.crop=64",
    "data.batch=2",
    "data.toy=",
    "device.kind=host",
    "rare_class_sampling.min_pixels=2",
    "network.channels=16",
    "network.hrda.detail_crop=32",
    "network.drop_path=0.3",
    "network.dropout=0.3",
    "teacher.alpha=0.9",
    // Smaller than usual, so that no detail crop is masked altogether: an untrained transformer sees
    // zeros there, and its layer norms multiply gradients without end.
    "mask.block=8",
    "pseudo_label.threshold=0.055",
    "pseudo_label.confident=0.055",
    "pseudo_label.margins=[2, 8, 2, 2]",
    "augment.jitter_threshold=0.0",
    "augment.blur_threshold=0.0",
    "quadmix.start=2",
    "quadmix.min_pixels=0",
    "quadmix.resize=[128, 64]",
    "schedule.warmup=2",
    "schedule.end=8",
    "run.checkpoint_interval=4",
    "run.eval_interval=0",
];

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hashes.json")
}

fn main() -> ExitCode {
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let world = folder.path().join("world");
    command(&["toy", world.to_str().unwrap(), "--size", "128x64"]);

    let fingerprint = fingerprint();
    let mut records: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(record()).unwrap_or("[]".into())).unwrap();
    let known = records.iter().position(|record| record["fingerprint"] == fingerprint);
    println!("fingerprint of this processor: {fingerprint}");

    let mut hashes = BTreeMap::new();
    let mut differing = 0;
    for preset in PRESETS {
        for method in METHODS {
            for joined in [false, true] {
                let name = format!("{preset} {method} {}", if joined { "joined" } else { "apart" });
                let found = run(folder.path(), &world, preset, method, joined);
                let same = known.is_none_or(|at| records[at]["hashes"][&name] == json!(found));
                differing += usize::from(!same);
                let verdict = if same { "" } else { "  DIFFERS from the record" };
                println!("{name:<30} state {}  losses {}{verdict}", found[0], found[1]);
                // Whatever the processor: the source pass alone, and a ResNet's passes, stay apart.
                let apart = hashes.get(&format!("{preset} {method} apart"));
                if joined && (method == "source_only" || preset == "toy_cnn") {
                    assert_eq!(Some(&found), apart, "{name} is not the same as apart");
                }
                hashes.insert(name, found);
            }
        }
    }
    if std::env::var_os("UDASS_RECORD_HASHES").is_some() {
        records.retain(|record| record["fingerprint"] != fingerprint);
        records.push(json!({ "fingerprint": fingerprint, "hashes": hashes }));
        fs::write(record(), serde_json::to_string_pretty(&records).unwrap() + "\n").unwrap();
        println!("recorded");
    } else if known.is_none() {
        println!("tests/hashes.json has no record for this processor: nothing was compared");
    } else if differing > 0 {
        println!("{differing} of {} runs differ from tests/hashes.json", hashes.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn command(words: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_udass-raw")).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}:\n{said}");
}

/// Returns the hash of a run's whole state, and that of its losses.
fn run(folder: &Path, world: &Path, preset: &str, method: &str, joined: bool) -> [String; 2] {
    let out = folder.join("run");
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    let iterations = ITERATIONS.to_string();
    let mut settings: Vec<String> = SETTINGS.iter().map(|set| set.to_string()).collect();
    settings.push(format!("source.root={}", world.join("gta").display()));
    settings.push(format!("target.root={}", world.join("cityscapes").display()));
    settings.push(format!("network.join_passes={joined}"));
    let mut words = vec!["train", preset, "--method", method, "--max-iters", &iterations];
    words.extend(["--out", out.to_str().unwrap()]);
    words.extend(settings.iter().flat_map(|set| ["--set", set]));
    command(&words);
    let checkpoint = out.join(format!("checkpoints/iteration_{ITERATIONS:06}.safetensors"));
    [state(&checkpoint), losses(&out.join("log.jsonl"))]
}

fn state(checkpoint: &Path) -> String {
    let bytes = fs::read(checkpoint).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hash = Sha256::new();
    for (name, tensor) in &tensors {
        hash.update(format!("{name} {:?} {:?}\n", tensor.dtype(), tensor.shape()));
        hash.update(tensor.data());
    }
    short(hash)
}

fn losses(log: &Path) -> String {
    let mut hash = Sha256::new();
    let text = fs::read_to_string(log).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let iterations: Vec<Value> = lines.filter(|line| line["event"] == "iteration").collect();
    assert_eq!(iterations.len() as u64, ITERATIONS, "{}", log.display());
    for line in iterations {
        for key in ["iteration", "losses", "lr", "pseudo_label_weight"] {
            hash.update(format!("{key} {}\n", line[key]));
        }
    }
    short(hash)
}

/// Identifies the instruction set that selects the kernels, and a matmul deep enough that its
/// summation order reveals the blocking.
fn fingerprint() -> String {
    let (m, n, k) = (96, 80, 3000);
    let noise = |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 / 1_000_003.0 - 0.5;
    let a: Vec<f32> = (0..m * k).map(noise).collect();
    let b: Vec<f32> = (0..k * n).map(|i| noise(i + 17)).collect();
    let mut c = vec![0.0f32; m * n];
    // SAFETY: the three matrices are row-major and have exactly these sizes.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            1,
            n as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    let mut hash = Sha256::new();
    c.iter().for_each(|x| hash.update(x.to_le_bytes()));
    format!("{} {}", instruction_set(), short(hash))
}

fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "x86-64-v4";
        }
        if is_x86_feature_detected!("avx2") {
            return "x86-64-v3";
        }
    }
    std::env::consts::ARCH
}

fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
