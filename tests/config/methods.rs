//! Methods: their presets, and what `--method` changes in another configuration.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use udass_raw::config::{Config, METHODS, Stages, preset_names};

use super::{load, preset, refusal, set};

const SWITCHES: [&str; 8] = [
    "teacher",
    "mask",
    "quadmix",
    "rare_class_sampling",
    "feature_distance",
    "network.hrda",
    "contrast",
    "class_balanced_crop",
];

/// Teacher, mask, QuadMix, rare classes, feature distance, HRDA, contrast.
fn switches(c: &Config) -> [bool; 7] {
    let Stages { teacher, mask, quadmix, rare_class_sampling, hrda, contrast } = c.stages();
    let distance = c.feature_distance.enabled;
    assert_eq!((c.class_balanced_crop.enabled, c.augment.unmixed), (contrast, contrast));
    assert_eq!(c.network.projection > 0, contrast);
    [teacher, mask, quadmix, rare_class_sampling, distance, hrda, contrast]
}

fn with(base: &str, method: &str, sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    Config::load_with(base, Some(method), &sets).unwrap()
}

/// The keys that a method's preset states itself, but `base`.
fn stated(method: &str) -> Vec<(String, toml::Value)> {
    let text = fs::read_to_string(format!("configs/{method}.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let mut keys = Vec::new();
    flatten("", &toml::Value::Table(table), &mut keys);
    // What describes one published run is no part of the method.
    let of_a_run = |key: &str| ["base", "seed"].contains(&key) || key.starts_with("run.");
    keys.retain(|(key, _)| !of_a_run(key));
    keys
}

fn flatten(prefix: &str, value: &toml::Value, keys: &mut Vec<(String, toml::Value)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, keys);
            }
        }
        value => keys.push((prefix.into(), value.clone())),
    }
}

fn value(config: &Config, key: &str) -> toml::Value {
    let mut keys = Vec::new();
    let table: toml::Table = config.to_toml().unwrap().parse().unwrap();
    flatten("", &toml::Value::Table(table), &mut keys);
    keys.into_iter().find(|(known, _)| known == key).unwrap_or_else(|| panic!("{key}")).1
}

#[test]
fn each_method_switches_what_it_adds() {
    let full = [30, 240, 30, 30];
    let half = [15, 120, 0, 0];
    let (yes, no) = (true, false);
    // Head, switches, crop, margins, decay of the teacher.
    let expected = [
        ("source_only", "dlv2", [no, no, no, no, no, no, no], 512, half, 0.999),
        ("dacs", "dlv2", [yes, no, no, no, no, no, no], 512, [0; 4], 0.99),
        ("daformer", "daformer", [yes, no, no, yes, yes, no, no], 512, half, 0.999),
        ("hrda", "daformer", [yes, no, no, yes, yes, yes, no], 1024, full, 0.999),
        ("mic", "daformer", [yes, yes, no, yes, yes, yes, no], 1024, full, 0.999),
        ("quadmix", "daformer", [yes, yes, yes, yes, yes, yes, no], 1024, full, 0.999),
        ("sepico", "daformer", [yes, no, no, yes, no, no, yes], 640, half, 0.999),
    ];
    assert_eq!(expected.each_ref().map(|e| e.0), METHODS);
    for (name, head, on, crop, margins, decay) in expected {
        let config = preset(name);
        assert_eq!(switches(&config), on, "{name}");
        assert_eq!((config.network.head.as_str(), config.data.crop), (head, crop), "{name}");
        assert_eq!(config.pseudo_label.margins, margins, "{name}");
        assert_eq!((config.teacher.ema_decay, config.pseudo_label.threshold), (decay, 0.968));
        assert_eq!(config.stages().method(), name);
        if config.data.crop == 640 {
            assert_eq!((config.source.resize, config.target.resize), ([1280, 720], [1280, 640]));
            assert_eq!((config.eval.resize, config.eval.window), ([1280, 640], 0));
        }
        if config.data.crop == 512 {
            assert_eq!((config.source.resize, config.target.resize), ([1280, 720], [1024, 512]));
            assert_eq!((config.eval.resize, config.eval.window), ([1024, 512], 0));
            assert_eq!((config.rare_class_sampling.min_crop_ratio, config.mask.block), (0.5, 32));
        }
    }
    let titles = METHODS.map(|method| preset(method).stages().title());
    assert_eq!(titles, ["source only", "DACS", "DAFormer", "HRDA", "MIC", "QuadMix", "SePiCo"]);
}

#[test]
fn each_method_states_every_switch_and_only_what_fits_every_size() {
    for method in METHODS {
        let keys = stated(method);
        for switch in SWITCHES {
            let key = format!("{switch}.enabled");
            assert!(keys.iter().any(|(stated, _)| *stated == key), "{method} lacks {key}");
        }
        for (key, _) in keys {
            let sized = key.starts_with("data.")
                || key.starts_with("schedule.")
                || key.ends_with(".resize")
                || (key.contains("crop") && !key.starts_with("class_balanced_crop."))
                || ["mask.block", "mask.ratio", "quadmix.start"].contains(&&*key)
                || (key == "pseudo_label.margins" && method != "dacs");
            assert!(!sized, "{method} states {key}");
        }
    }
}

#[test]
fn a_method_over_another_configuration_sets_all_that_it_states_and_no_more() {
    for base in preset_names() {
        for method in METHODS {
            let config = with(base, method, &[]);
            assert_eq!(config.run.out, Path::new(&format!("runs/{base}_{method}")));
            assert_eq!(config.stages().method(), method, "{base}");
            let own = preset(method);
            assert_eq!(switches(&config), switches(&own), "{base}, {method}");
            let keys = stated(method);
            for (key, _) in &keys {
                assert_eq!(value(&config, key), value(&own, key), "{base}, {method}: {key}");
            }
            let mut all = Vec::new();
            let table: toml::Table = preset(base).to_toml().unwrap().parse().unwrap();
            flatten("", &toml::Value::Table(table), &mut all);
            for (key, was) in all {
                if key != "run.out" && !keys.iter().any(|(stated, _)| *stated == key) {
                    assert_eq!(value(&config, &key), was, "{base}, {method}: {key}");
                }
            }
        }
    }
    // And `--set` is above the method.
    let config = with("toy_vit", "dacs", &["teacher.ema_decay=0.5"]);
    assert_eq!(config.teacher.ema_decay, 0.5);
    let told = Config::load_with("toy_vit", Some("gta_vit"), &[]).unwrap_err().to_string();
    assert!(
        told.starts_with("there is no method `gta_vit`; the methods are source_only"),
        "{told}"
    );
}

#[test]
fn nothing_is_left_of_the_method_that_a_base_has() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("mine.toml");
    for under in METHODS {
        fs::write(&path, format!("base = [\"toy_vit\", \"{under}\"]\n")).unwrap();
        assert_eq!(load(&path).unwrap().stages().method(), under);
        for method in METHODS {
            let config = with(path.to_str().unwrap(), method, &[]);
            let mut clean = with("toy_vit", method, &[]);
            clean.run.out = config.run.out.clone();
            // Sizes stay the base's; so do values of stages that the method does not have.
            clean.pseudo_label.margins = config.pseudo_label.margins;
            if method == "source_only" {
                clean.teacher = config.teacher.clone();
                clean.pseudo_label = config.pseudo_label.clone();
            }
            assert_eq!(config, clean, "{method} over {under}");
        }
    }
}

#[test]
fn sizes_that_are_not_the_published_ones_are_noted() {
    let config = with("toy_vit", "mic", &["mask.block=8"]);
    assert_eq!(
        config.notes.lines(),
        [
            "note: source.resize = [256, 141] comes from the base; mic was published with [2560, \
             1440]",
            "note: target.resize = [256, 128] comes from the base; mic was published with [2048, \
             1024]",
            "note: data.crop = 128 comes from the base; mic was published with 1024",
            "note: rare_class_sampling.min_pixels = 120 comes from the base; mic was published \
             with 3000",
            "note: rare_class_sampling.min_crop_ratio = 1.25 comes from the base; mic was \
             published with 2.0",
            "note: network.hrda.detail_crop = 64 comes from the base; mic was published with 512",
            "note: pseudo_label.margins = [4, 30, 4, 4] comes from the base; mic was published \
             with \
             [30, 240, 30, 30]",
            "note: mask.ratio = 0.5 comes from the base; mic was published with 0.7",
            "note: schedule.warmup = 50 comes from the base; mic was published with 1500",
            "note: run.max_iters = 800 comes from the base; mic was published with 40000",
        ]
    );
    // The published settings themselves, and other tasks' sizes.
    for (base, method) in [
        ("syn_vit", "mic"),
        ("gta_vit", "quadmix"),
        ("gta_cnn", "quadmix"),
        ("syn_vit", "quadmix"),
        ("cs_acdc", "mic"),
        ("gta_vit_512", "daformer"),
    ] {
        assert_eq!(with(base, method, &[]).notes.lines(), [""; 0], "{base}, {method}");
    }
    assert_eq!(preset("toy_vit").notes.lines(), [""; 0]);
    // What the method itself states is no size of the base's, and stages that are off have none.
    let notes = with("gta_vit", "dacs", &[]).notes.take();
    let keys: Vec<&str> = notes.iter().filter_map(|note| note.split(' ').nth(1)).collect();
    assert_eq!(keys, ["source.resize", "target.resize", "data.crop"]);
}

#[test]
fn masking_and_quadmix_need_the_teacher() {
    assert_eq!(
        refusal(&["teacher.enabled=false", "quadmix.enabled=false", "mask.enabled=true"]),
        "--set mask.enabled=true: `mask.enabled`: is true, but it needs the teacher's \
         pseudo-labels and teacher.enabled is false"
    );
    let told = refusal(&["teacher.enabled=false"]);
    assert!(
        told.contains("`mask.enabled`: is true, but it needs the teacher's pseudo-labels"),
        "{told}"
    );
    assert!(
        told.contains("`quadmix.enabled`: is true, but it needs the teacher's pseudo-labels"),
        "{told}"
    );
    let config =
        set(&["teacher.enabled=false", "mask.enabled=false", "quadmix.enabled=false"]).unwrap();
    assert_eq!((config.stages().method(), config.learns_from_target()), ("source_only", false));
    let config = set(&["mask.enabled=false"]).unwrap();
    assert_eq!(config.stages().title(), "QuadMix without masking");
}
