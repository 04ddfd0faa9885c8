//! Values of a configuration that would take all memory, and configurations of thousands of
//! mistakes.

use std::fmt::Write;

use udass_raw::config::Config;

use crate::{file, folder, refused};

fn load(sets: &[String]) -> Result<Config, String> {
    Config::load("gta_vit", sets).map_err(|e| e.to_string())
}

#[test]
fn every_value_that_takes_memory_has_a_largest() {
    // What is set besides, the key, the largest value, the next one, and how the bound is told.
    let small = ["data.crop=64", "network.hrda.detail_crop=32", "data.batch=1", "data.prefetch=0"];
    let small = &small[..];
    let flat =
        ["network.backbone=resnet101_v1c", "network.head=dlv2", "network.hrda.enabled=false"];
    let flat = &flat[..];
    let side = "at most 16384";
    let cases: &[(&[&str], &str, &str, &str, &str)] = &[
        (small, "data.batch", "1024", "1025", "at most 1024, got 1025"),
        (&[], "data.batch", "256", "257", "at most 256 images with data.crop = 1024, got 257"),
        (small, "data.prefetch", "1024", "1025", "at most 1024, got 1025"),
        (&[], "data.prefetch", "1024", "1025", "at most 1024, got 1025"),
        (&["data.batch=4"], "data.prefetch", "512", "513", "at most 512 batches of 4 with"),
        (&[], "data.workers", "1024", "1025", "at most 1024, got 1025"),
        (&[], "data.crop_attempts", "10000", "10001", "at most 10000"),
        (&[], "rare_class_sampling.attempts", "10000", "10001", "at most 10000"),
        (&[], "device.threads", "1024", "1025", "at most 1024, got 1025"),
        (&[], "source.resize", "[16384, 16384]", "[16385, 2]", side),
        (&[], "target.resize", "[16384, 16384]", "[2, 16385]", side),
        (&[], "eval.resize", "[16384, 16384]", "[16385, 16384]", side),
        (&[], "quadmix.resize", "[16384, 16384]", "[16385, 16384]", side),
        (&["data.batch=1"], "data.crop", "16384", "16448", side),
        (&[], "eval.window", "16384", "16448", side),
        (&[], "network.hrda.divisible", "16384", "16392", side),
        (&[], "eval.batch", "1024", "1025", "at most 1024, got 1025"),
        (&[], "network.channels", "8192", "8193", "at most 8192, got 8193"),
        (flat, "network.dilations", "[256]", "[257]", "each at least 1 and at most 256"),
        (
            flat,
            "network.dilations",
            "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
            "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
            "at most 16 of them",
        ),
    ];
    for &(besides, key, largest, next, told) in cases {
        let with = |value: &str| {
            let besides = besides.iter().filter(|set| !set.starts_with(&format!("{key}=")));
            let mut sets: Vec<String> = besides.map(|set| set.to_string()).collect();
            if key == "data.crop" || key == "quadmix.resize" || key.ends_with("resize") {
                sets.push("quadmix.resize=[16384, 16384]".into());
            }
            sets.push(format!("{key}={value}"));
            load(&sets)
        };
        if let Err(problem) = with(largest) {
            assert!(!problem.contains(&format!("`{key}`")), "{key} = {largest}: {problem}");
        }
        for value in [next, "9223372036854775807"] {
            let problem = with(value).unwrap_err();
            assert!(problem.contains(&format!("`{key}`: ")), "{problem}");
            assert!(value != next || problem.contains(told), "{problem}\n  lacks {told}");
        }
    }
}

/// Returns the processor time that this thread has taken, which other programs do not lengthen.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a place that lives on.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

#[test]
fn thousands_of_unknown_keys_are_counted_in_linear_time() {
    let folder = folder();
    let told = |count: usize| {
        let mut text = String::from("base = \"toy_vit\"\n[data]\n");
        for key in 0..count {
            writeln!(text, "key_{key:05} = {key}").unwrap();
        }
        let path = file(folder.path(), "many.toml", text.as_bytes());
        let before = processor_seconds();
        let told = Config::load(path.to_str().unwrap(), &[]).unwrap_err().to_string();
        (told, processor_seconds() - before)
    };
    let (_, few) = told(5_000);
    let (told, many) = told(20_000);
    assert!(many < 8.0 * few, "four times as many take {} times as long", many / few);
    for part in [
        "many.toml:3:1: `data.key_00000`: unknown",
        "`data.key_00009`",
        "19990 more",
        "20000 in all",
    ] {
        assert!(told.contains(part), "{part} in: {told}");
    }
    assert!(!told.contains("key_00010"), "{told}");
}

#[test]
fn a_configuration_that_is_too_large_or_deep_is_refused() {
    let folder = folder();
    let large = file(folder.path(), "large.toml", &vec![b'#'; (4 << 20) + 1]);
    let told = Config::load(large.to_str().unwrap(), &[]).unwrap_err().to_string();
    assert!(told.contains("large.toml: cannot read") && told.contains("more than 4 MiB"), "{told}");
    let told = Config::from_toml(&"#".repeat((4 << 20) + 1), "kept").unwrap_err().to_string();
    assert!(told.contains("kept: has more than 4 MiB"), "{told}");
    let keys = vec!["a"; 1 << 20].join(".");
    let inline = format!("a = {}", "{a=".repeat(1 << 20));
    let lists = format!("a = {}", "[".repeat(1 << 20));
    for text in [format!("{keys} = 1"), format!("[{keys}]"), format!("[[{keys}]]"), inline, lists] {
        file(folder.path(), "deep.toml", text.as_bytes());
        refused(folder.path(), &["config", "show", "deep.toml"], &["deep.toml"]);
    }
    let set = format!("{}=1", vec!["a"; 60_000].join("."));
    refused(folder.path(), &["config", "show", "toy_vit", "--set", &set], &["--set a.a"]);
}
