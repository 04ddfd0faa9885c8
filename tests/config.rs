//! Tests the configuration: presets, inheritance, overrides, and error messages for typos.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use udass_raw::Error;
use udass_raw::config::{Config, Masked, preset_names};

#[path = "config/methods.rs"]
mod methods;
#[path = "config/reference.rs"]
mod reference;
#[path = "config/renamed.rs"]
mod renamed;

fn set(overrides: &[&str]) -> Result<Config, Error> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::load("gta_vit", &overrides)
}

fn preset(name: &str) -> Config {
    Config::load(name, &[]).unwrap()
}

fn refusal(overrides: &[&str]) -> String {
    set(overrides).expect_err("a wrong override was accepted").to_string()
}

/// Writes a user's configuration file that inherits from gta_vit.
fn file(body: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("mine.toml");
    fs::write(&path, format!("base = \"gta_vit\"\n{body}")).unwrap();
    (folder, path)
}

fn load(path: &Path) -> Result<Config, Error> {
    Config::load(path.to_str().unwrap(), &[])
}

/// Returns the error of loading `body`, with the path shortened to `mine.toml`.
fn file_refusal(body: &str) -> String {
    let (folder, path) = file(body);
    let error = load(&path).expect_err("a wrong file was accepted").to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn gta_vit_is_the_published_setting() {
    let c = Config::load("gta_vit", &[]).unwrap();
    assert_eq!((c.seed, c.stages().method()), (1, "quadmix"));
    assert_eq!((c.source.resize, c.target.resize), ([2560, 1440], [2048, 1024]));
    assert_eq!((c.data.crop, c.data.batch, c.data.max_class_share), (1024, 2, 0.75));
    let rcs = &c.rare_class_sampling;
    assert_eq!((rcs.temperature, rcs.min_pixels, rcs.min_crop_ratio), (0.01, 3000, 2.0));
    assert_eq!((c.network.backbone.as_str(), c.network.channels), ("mit_b5", 256));
    assert_eq!((c.network.hrda.detail_crop, c.network.hrda.detail_loss), (512, 0.1));
    assert_eq!((c.teacher.ema_decay, c.pseudo_label.threshold), (0.999, 0.968));
    assert_eq!((c.pseudo_label.confident, c.pseudo_label.margins), (0.9, [30, 240, 30, 30]));
    assert_eq!((c.mask.block, c.mask.ratio, c.mask.weight), (64, 0.7, 1.0));
    assert_eq!(c.feature_distance.classes, [6, 7, 11, 12, 13, 14, 15, 16, 17, 18]);
    assert_eq!((c.feature_distance.weight, c.feature_distance.min_share), (0.005, 0.75));
    assert_eq!((c.quadmix.start, c.quadmix.min_pixels), (6000, 50));
    assert_eq!(c.quadmix.classes, [3, 4, 5, 6, 12, 15, 16, 17, 18]);
    assert!(c.quadmix.released_colors && c.quadmix.released_exclusion);
    assert_eq!((c.optimizer.lr, c.optimizer.weight_decay), (6e-5, 0.01));
    let rules: Vec<_> = c
        .optimizer
        .param_groups
        .iter()
        .map(|r| (r.contains.as_str(), r.lr_mult, r.decay_mult))
        .collect();
    assert_eq!(rules, [("pos_block", 1.0, 0.0), ("head", 10.0, 1.0), ("norm", 1.0, 0.0)]);
    assert_eq!((c.schedule.warmup, c.schedule.warmup_ratio, c.schedule.end), (1500, 1e-6, 50_000));
    assert_eq!((c.run.max_iters, c.run.eval_interval, c.seed), (50_000, 500, 1));
    assert_eq!((c.eval.window, c.eval.stride), (1024, 512));
}

#[test]
fn the_other_tasks_are_the_published_settings() {
    let [vit, gta_cnn, syn_vit, syn_cnn] = ["gta_vit", "gta_cnn", "syn_vit", "syn_cnn"].map(preset);
    let network = |c: &Config| (c.network.backbone.clone(), c.network.head.clone(), c.seed);
    for (cnn, vit) in [(&gta_cnn, &vit), (&syn_cnn, &syn_vit)] {
        assert_eq!(network(cnn), ("resnet101_v1c".into(), "dlv2".into(), 0));
        assert_eq!(cnn.network.dilations, [6, 12]);
        assert_eq!(cnn.network.hrda, vit.network.hrda);
        let rules: Vec<_> = cnn
            .optimizer
            .param_groups
            .iter()
            .map(|r| (r.contains.as_str(), r.lr_mult, r.decay_mult))
            .collect();
        assert_eq!(rules, [("head", 10.0, 1.0)]);
        assert_eq!(cnn.weights.init, "weights/resnet101_v1c.safetensors");
        // Everything else equals the transformer's preset, except the QuadMix section.
        let mut same = vit.clone();
        same.network = cnn.network.clone();
        same.optimizer = cnn.optimizer.clone();
        (same.seed, same.weights, same.run) = (cnn.seed, cnn.weights.clone(), cnn.run.clone());
        (same.quadmix.start, same.schedule.end) = (cnn.quadmix.start, 40_000);
        assert_eq!(*cnn, same);
    }
    let lengths = [&gta_cnn, &syn_vit, &syn_cnn].map(|c| (c.run.max_iters, c.schedule.end));
    assert_eq!(lengths, [(40_000, 40_000); 3]);
    let starts = [&vit, &gta_cnn, &syn_vit, &syn_cnn].map(|c| c.quadmix.start);
    assert_eq!(starts, [6000, 7000, 6000, 6001]);
    assert_eq!(network(&syn_vit), ("mit_b5".into(), "daformer".into(), 1));
    for syn in [&syn_vit, &syn_cnn] {
        assert_eq!((syn.source.layout.as_str(), syn.source.resize), ("synthia", [2560, 1520]));
        assert_eq!(syn.quadmix.classes, [3, 3, 4, 4, 4, 4, 5, 5, 6, 7, 12, 13, 18]);
        assert_eq!(syn.quadmix.min_pixels, 10);
        assert_eq!((syn.rare_class_sampling.min_pixels, syn.target.resize), (3000, [2048, 1024]));
    }
}

#[test]
fn adverse_conditions_are_mics_settings_with_quadmix() {
    let vit = preset("gta_vit");
    for (name, layout) in [("cs_acdc", "acdc"), ("cs_dz", "dark_zurich")] {
        let c = preset(name);
        assert_eq!((c.source.layout.as_str(), c.source.resize), ("cityscapes", [2048, 1024]));
        assert_eq!((c.target.layout.as_str(), c.target.resize), (layout, [1920, 1080]));
        assert_eq!((c.eval.resize, c.pseudo_label.margins), ([1920, 1080], [0; 4]));
        assert_eq!((c.mask.images, c.mask.augment), (Masked::Both, false));
        assert_eq!((c.quadmix.start, &c.quadmix.classes[..]), (6000, &[4, 6, 15, 17, 18][..]));
        assert_eq!((c.seed, c.run.max_iters, c.run.eval_interval), (0, 40_000, 4000));
        // Everything else equals the preset with Cityscapes as the target.
        let (mut c, run) = (c, vit.run.clone());
        (c.source, c.target, c.eval, c.run) =
            (vit.source.clone(), vit.target.clone(), vit.eval.clone(), run);
        (c.seed, c.schedule.end) = (vit.seed, vit.schedule.end);
        (c.pseudo_label.margins, c.mask) = (vit.pseudo_label.margins, vit.mask.clone());
        c.quadmix.classes = vit.quadmix.classes.clone();
        assert_eq!(c, vit);
    }
}

#[test]
fn a_head_must_fit_its_backbone() {
    let single = "network.hrda.enabled=false";
    for sets in [
        &["network.head=segformer", single][..],
        &["network.backbone=resnet50_v1c", "network.head=segformer", single],
        &["network.backbone=resnet50_v1c", "network.head=dlv2"],
        &["network.backbone=resnet101_v1c", "network.head=daformer"],
    ] {
        set(sets).unwrap_or_else(|e| panic!("{sets:?}: {e}"));
    }
    for (sets, expected) in [
        (&["network.head=segformer"][..], "expected daformer with mit_b5 and HRDA, got"),
        (
            &["network.head=dlv2", single],
            "expected daformer or segformer with mit_b5, got \"dlv2\"",
        ),
        (
            &["network.backbone=resnet50_v1c", "network.head=segformer"],
            "expected daformer or dlv2 with resnet50_v1c and HRDA, got",
        ),
    ] {
        let told = refusal(sets);
        assert!(told.contains(&format!("`network.head`: {expected}")), "{told}");
    }
    let resnet = ["network.backbone=resnet50_v1c", "network.head=dlv2"];
    let told = refusal(&[&resnet[..], &["network.hrda.detail_crop=504"]].concat());
    assert!(told.contains("a multiple of 16 (the head's stride of 8"), "{told}");
    let cnn = |sets: &[&str]| set(&[&resnet[..], sets].concat());
    assert!(cnn(&["data.crop=528", "eval.window=272", "eval.stride=136"]).is_ok());
    let told = cnn(&["data.crop=520"]).unwrap_err().to_string();
    assert!(
        told.contains("a multiple of 16 (HRDA scales the crop by 0.5, and the backbone's"),
        "{told}"
    );
    for dilations in ["[]", "[6, 0]"] {
        let told = refusal(&[&format!("network.dilations={dilations}")]);
        assert!(told.contains("expected a list of numbers, each at least 1"), "{told}");
    }
}

#[test]
fn toy_vit_differs_where_it_says_so_and_inherits_the_rest() {
    let (toy, full) =
        (Config::load("toy_vit", &[]).unwrap(), Config::load("gta_vit", &[]).unwrap());
    assert_eq!((toy.network.backbone.as_str(), toy.network.hrda.detail_crop), ("mit_b0", 64));
    assert_eq!(toy.target.root, Path::new("data/toy/cityscapes"));
    assert!(!toy.feature_distance.enabled && toy.weights.init == "random");
    // Besides the keys that toy_vit.toml sets, sections keep their inherited keys; lists of tables
    // are replaced whole.
    assert_eq!(toy.network.hrda.divisible, full.network.hrda.divisible);
    assert_eq!(toy.optimizer.param_groups, full.optimizer.param_groups);
    assert_eq!((toy.stages(), toy.augment), (full.stages(), full.augment));
}

#[test]
fn every_preset_survives_a_round_trip() {
    for name in preset_names() {
        let config = Config::load(name, &["seed=9223372036854775807".into()]).unwrap();
        let text = config.to_toml().unwrap();
        let again = Config::from_toml(&text, "saved").unwrap();
        assert_eq!(again, config, "{name}");
        // Numbers are written in their shortest form, not as the f64 nearest to an f32.
        assert!(text.contains("flip = 0.5\n") && text.contains("confident = 0.9\n"), "{text}");
    }
}

#[test]
fn the_complete_preset_names_every_key_once() {
    // The complete preset is the schema: a field that it lacked could not be set.
    let text = fs::read_to_string("configs/gta_vit.toml").unwrap();
    let written: toml::Table = toml::from_str(&text).unwrap();
    let config = Config::load("gta_vit", &[]).unwrap();
    let known: toml::Table = toml::from_str(&config.to_toml().unwrap()).unwrap();
    fn paths(table: &toml::Table, prefix: &str, out: &mut Vec<String>) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) => paths(inner, &format!("{path}."), out),
                _ => out.push(path),
            }
        }
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    paths(&written, "", &mut a);
    paths(&known, "", &mut b);
    a.sort();
    b.sort();
    assert_eq!(a, b);
    assert!(a.len() > 60);
}

#[test]
fn every_key_of_the_complete_preset_is_explained() {
    // Every key has a comment right above it, or directly follows a key that has one.
    let text = fs::read_to_string("configs/gta_vit.toml").unwrap();
    let mut explained = false;
    let mut bare = Vec::new();
    for line in text.lines() {
        let key = line.split_once(" = ").map(|(key, _)| key);
        match key {
            _ if line.starts_with('#') => explained = true,
            Some(key) if !explained => bare.push(key),
            Some(_) => {}
            None => explained = line.starts_with("[[") || (line.starts_with('[') && explained),
        }
    }
    assert_eq!(bare, [""; 0]);
}

#[test]
fn overrides_take_toml_and_fall_back_to_text() {
    let c = set(&[
        "data.batch=1",
        "optimizer.lr = 1e-4",
        "device.precision=bf16",
        "quadmix.enabled=false",
        "pseudo_label.margins=[1, 2, 3, 4]",
        "quadmix.classes=[17,18]",
        "optimizer.betas=[0, 0.5]",
        "run.out=2024",
        "weights.init=a=b.pth",
        "network.hrda={detail_crop = 256}",
        "optimizer.param_groups=[{contains=\"head\", lr_mult=2}]",
        "data.batch=3",
    ])
    .unwrap();
    assert_eq!(c.data.batch, 3, "the last one wins");
    assert_eq!(
        (c.optimizer.lr, c.device.precision.as_str(), c.stages().method()),
        (1e-4, "bf16", "mic")
    );
    assert_eq!((c.pseudo_label.margins, c.quadmix.classes), ([1, 2, 3, 4], vec![17, 18]));
    assert_eq!(c.optimizer.betas, [0.0, 0.5]);
    assert_eq!(c.run.out, Path::new("2024"), "text is wanted, and a number is text too");
    assert_eq!(c.weights.init, "a=b.pth");
    assert_eq!((c.network.hrda.detail_crop, c.network.hrda.divisible), (256, 8));
    let rule = &c.optimizer.param_groups[0];
    assert_eq!((c.optimizer.param_groups.len(), rule.lr_mult, rule.decay_mult), (1, 2.0, 1.0));
}

#[test]
fn an_unknown_override_is_told_with_the_nearest_key() {
    assert_eq!(
        refusal(&["optimizer.lrr=1"]),
        "--set optimizer.lrr=1: `optimizer.lrr`: unknown key; did you mean `optimizer.lr`?"
    );
    assert!(refusal(&["optimiser.lr=1"]).ends_with("did you mean `optimizer`?"));
    // The key exists, but in another section.
    assert!(refusal(&["crop=512"]).ends_with("did you mean `data.crop`?"));
    assert!(refusal(&["eval.crop=512"]).ends_with("did you mean `data.crop`?"));
    assert!(refusal(&["teacher.zzzzzz=1"]).ends_with("known here: ema_decay, enabled"));
    assert!(
        refusal(&["optimizer.param_groups=[{contain=\"x\"}]"])
            .contains("`optimizer.param_groups.contains`?")
    );
}

#[test]
fn malformed_overrides_say_how_to_write_them() {
    for text in ["data.batch", "=1", "data..batch=1", ".=1"] {
        let told = refusal(&[text]);
        assert!(told.starts_with(&format!("--set {text}: expected KEY=VALUE")), "{told}");
    }
    let told = refusal(&["data.crop.side=1"]);
    assert_eq!(
        told,
        "--set data.crop.side=1: `data.crop`: has no keys inside it: set the whole value"
    );
}

#[test]
fn wrong_types_are_told_in_words() {
    let cases = [
        ("data.crop=big", "`data.crop`: expected a whole number, 0 or more, got string \"big\""),
        ("data.batch=-1", "`data.batch`: expected a whole number, 0 or more, got `-1`"),
        ("data.batch=1.5", "`data.batch`: expected a whole number, 0 or more, got `1.5`"),
        ("optimizer.lr=[1]", "`optimizer.lr`: expected a number, got sequence"),
        ("device.deterministic=1", "`device.deterministic`: expected true or false, got `1`"),
        ("data=3", "`data`: expected a section of keys, got `3`"),
        ("source.resize=[1]", "`source.resize`: "),
        ("pseudo_label.margins=[1,2,3,4,5]", "`pseudo_label.margins`: "),
        ("quadmix.classes=[3,300]", "`quadmix.classes`: expected a whole number from 0 to 255"),
    ];
    for (text, expected) in cases {
        let told = refusal(&[text]);
        let expected = format!("--set {text}: {expected}");
        assert!(told.starts_with(&expected), "{told}\n  instead of\n{expected}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    let cases = [
        ("data.crop=1000", "expected a multiple of 64 (HRDA scales the crop by 0.5"),
        ("data.flip=1.5", "expected a number from 0 to 1, got 1.5"),
        ("data.flip=nan", "got NaN"),
        ("data.batch=0", "expected at least 1, got 0"),
        ("network.hrda.detail_crop=2048", "expected at most data.crop, 1024, got 2048"),
        ("network.hrda.detail_crop=500", "expected a multiple of 8"),
        (
            "network.classes=255",
            "expected 19, the number of classes of source.layout = \"gta\", got 255",
        ),
        ("network.backbone=mit_b6", "expected mit_b0 or mit_b1"),
        ("network.drop_path=1", "expected at least 0 and less than 1"),
        ("device.kind=gpu", "expected auto or host or cuda or cuda:N, got \"gpu\""),
        ("device.kind=cuda:x", "expected auto or host or cuda or cuda:N, got \"cuda:x\""),
        ("device.memory_limit=\"20\"", "\"20GiB\""),
        ("device.memory_limit=120%", "a share like \"75%\", got \"120%\""),
        ("device.precision=f16", "expected f32 or tf32 or bf16"),
        ("source.layout=kitti", "expected gta or synthia or cityscapes"),
        ("source.resize=[0, 5]", "expected [width, height], each at least 1"),
        (
            "pseudo_label.margins=[600, 600, 0, 0]",
            "leave some rows and columns of target.resize, 2048x1024",
        ),
        ("augment.blur_sigma=[2, 1]", "0 < low <= high"),
        ("mask.ratio=-0.1", "expected a number from 0 to 1, got -0.1"),
        ("mask.block=0", "expected from 1 to data.crop"),
        ("feature_distance.classes=[19]", "expected class ids below 19"),
        ("quadmix.classes=[3]", "expected at least 2"),
        ("quadmix.resize=[512, 512]", "each at least 1024"),
        ("optimizer.lr=0", "expected a number above 0"),
        ("optimizer.lr=inf", "expected a number above 0"),
        ("optimizer.betas=[0.9, 1]", "less than 1"),
        ("run.max_iters=0", "expected at least 1"),
        ("eval.stride=2000", "expected from 1 to eval.window, 1024"),
        ("eval.window=100", "expected a multiple of 64"),
        ("weights.init=", "expected a file, or \"random\""),
    ];
    for (text, expected) in cases {
        let told = refusal(&[text]);
        let key = text.split('=').next().unwrap();
        assert!(told.starts_with(&format!("--set {text}: `{key}`: ")), "{told}");
        assert!(told.contains(expected), "{told}\n  lacks\n{expected}");
    }
    assert!(set(&["eval.window=0", "eval.stride=0"]).is_ok(), "whole images need no stride");
    assert!(set(&["network.hrda.enabled=false", "data.crop=544", "eval.window=0"]).is_ok());
}

#[test]
fn a_mistyped_key_in_a_file_is_pointed_at() {
    assert_eq!(
        file_refusal("\n[optimizer]\nlrr = 1e-4  # higher\n"),
        "mine.toml:4:1: `optimizer.lrr`: unknown key; did you mean `optimizer.lr`?\n   \
           |\n 4 | lrr = 1e-4  # higher\n   | ^^^"
    );
}

#[test]
fn a_wrong_value_in_a_file_is_pointed_at() {
    assert_eq!(
        file_refusal("[data]\n\tcrop =  1000\n"),
        "mine.toml:3:10: `data.crop`: expected a multiple of 64 (HRDA scales the crop by 0.5, and the \
         backbone's last stride is 32), got 1000\n   |\n 3 | \tcrop =  1000\n   | \t        ^^^^"
    );
    let told = file_refusal("[data]\ncrop = \"größ\" # ü\n");
    assert!(told.starts_with("mine.toml:3:8: `data.crop`: expected a whole number"), "{told}");
    assert!(told.ends_with("| crop = \"größ\" # ü\n   |        ^^^^^^"), "{told}");
}

#[test]
fn broken_toml_is_pointed_at() {
    let told = file_refusal("[data]\ncrop = = 3\n");
    assert!(told.starts_with("mine.toml:3:8: "), "{told}");
    let told = file_refusal("[data]\ncrop = 64\ncrop = 128\n");
    assert!(told.starts_with("mine.toml:4:1: duplicate key"), "{told}");
    let told = file_refusal("[data\ncrop = 1");
    assert!(told.starts_with("mine.toml:2:"), "{told}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_files_order() {
    let told = file_refusal("[data]\ncropp = 64\n[mask]\nrato = 0.5\n");
    let (first, second) = told.split_once("\nmine.toml:5:1: ").expect("two blocks");
    assert!(first.contains("did you mean `data.crop`?"), "{told}");
    assert!(second.contains("did you mean `mask.ratio`?"), "{told}");
    let told = refusal(&["data.flip=2", "mask.ratio=2"]);
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn a_value_that_only_the_base_has_wrong_names_the_base() {
    let (folder, path) = file("[data]\ncrop = 1000\n");
    let child = folder.path().join("child.toml");
    fs::write(&child, "base = \"mine\"\nseed = 3\n").unwrap();
    let told = load(&child).unwrap_err().to_string();
    assert!(told.starts_with(&format!("{}:3:8: `data.crop`", path.display())), "{told}");
    // A file that inherits from the broken one overrides it and resolves the error.
    fs::write(&child, "base = \"./mine.toml\"\nseed = 3\ndata.crop = 512\n").unwrap();
    let config = load(&child).unwrap();
    assert_eq!((config.seed, config.data.crop, config.data.batch), (3, 512, 2));
}

#[test]
fn a_file_without_base_must_be_complete() {
    let told = Config::from_toml("seed = 1\n", "saved").unwrap_err().to_string();
    assert!(told.contains("saved: `optimizer`: is missing; start the file with `base"), "{told}");
    let full = Config::load("gta_vit", &[]).unwrap().to_toml().unwrap();
    let told = Config::from_toml(&full.replace("flip = 0.5\n", ""), "saved").unwrap_err();
    assert!(told.to_string().starts_with("saved: `data.flip`: is missing"), "{told}");
}

#[test]
fn a_base_that_cannot_be_is_told() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.toml");
    for (text, expected) in [
        ("base = \"gta_vitt\"", "no configuration `gta_vitt`"),
        ("base = 3", "`base`: expected the name of a preset or the path of a file"),
        ("base = \"missing.toml\"", "`base`: there is no file "),
        ("base = \"a.toml\"", "cycle"),
    ] {
        fs::write(&path, text).unwrap();
        let told = load(&path).unwrap_err().to_string();
        assert!(told.starts_with(&format!("{}:1:8: ", path.display())), "{told}");
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn of_several_bases_the_first_counts_whole_and_the_others_own_keys() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    write("under.toml", "base = \"toy_vit\"\nseed = 3\ndata.batch = 3\n");
    write("over.toml", "base = \"syn_cnn\"\nseed = 4\n[mask]\nblock = 8\n");
    write("last.toml", "[mask]\nblock = 4\n");
    let path = write("mine.toml", "base = [\"under\", \"over\", \"./last.toml\"]\ndata.flip = 1\n");
    let mine = load(&path).unwrap();
    // syn_cnn has no effect: the keys that over.toml sets itself win.
    let mut expected = preset("toy_vit");
    (expected.seed, expected.data.batch, expected.data.flip) = (4, 3, 1.0);
    (expected.mask.block, expected.run.out) = (4, "runs/mine".into());
    assert_eq!(mine, expected);
    for (text, at, expected) in [
        ("base = [\"under\", \"nowhere\"]", 18, "no configuration `nowhere`"),
        ("base = [\"under\", 3]", 18, "or a list of them"),
        ("base = [\"nowhere\", \"under\"]", 9, "no configuration `nowhere`"),
        ("base = []", 8, "the list is empty"),
    ] {
        let path = write("wrong.toml", text);
        let told = load(&path).unwrap_err().to_string();
        assert!(told.starts_with(&format!("{}:1:{at}: `base`: ", path.display())), "{told}");
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn the_documented_example_of_own_data_is_valid() {
    let page = fs::read_to_string("docs/your-data.md").unwrap();
    let (_, block) = page.split_once("```toml\n# mine.toml\n").unwrap();
    let (folder, _) = file("");
    let path = folder.path().join("mine.toml");
    fs::write(&path, block.split_once("```").unwrap().0).unwrap();
    let config = Config::load(path.to_str().unwrap(), &[]).unwrap();
    assert_eq!((config.network.classes, config.dataset.names.len()), (3, 3));
    // The configuration that is saved with a run can be read back.
    let again = Config::from_toml(&config.to_toml().unwrap(), "saved").unwrap();
    assert_eq!(again, config);
}

#[test]
fn unknown_names_and_missing_files_are_told() {
    let told = Config::load("gta_vitt", &[]).unwrap_err().to_string();
    assert!(told.contains("no configuration `gta_vitt`"), "{told}");
    assert!(told.contains("configs/gta_vitt.toml") && told.contains("did you mean `gta_vit`?"));
    let told = Config::load("nothing_like_it", &[]).unwrap_err().to_string();
    assert!(told.contains("the presets are gta_vit, gta_cnn, syn_vit"), "{told}");
    let told = Config::load("no/such.toml", &[]).unwrap_err().to_string();
    assert!(told.starts_with("no/such.toml: cannot read the configuration: "), "{told}");
}

#[test]
fn the_schedule_ends_with_the_run_unless_it_is_set() {
    let ends = |sets: &[&str]| {
        let config = set(sets).unwrap();
        (config.run.max_iters, config.schedule.end)
    };
    assert_eq!(ends(&["run.max_iters=7000"]), (7000, 7000));
    assert_eq!(ends(&["run.max_iters=7000", "schedule.end=9000"]), (7000, 9000));
    assert_eq!(ends(&["run.max_iters=7000", "schedule.end=0"]), (7000, 7000));
    // Training on at a rate of 0 would do nothing.
    let told = refusal(&["schedule.end=40000"]);
    assert!(told.contains("`run.max_iters`: expected at most schedule.end, 40000"), "{told}");
    assert!(told.contains("got 50000"), "{told}");
    let told = refusal(&["schedule.end=1000", "run.max_iters=1000"]);
    assert!(
        told.contains("`schedule.warmup`: expected at most schedule.end, 1000, got 1500"),
        "{told}"
    );
    // What is saved holds the number, whatever a later run is told.
    let saved = set(&["run.max_iters=7000"]).unwrap().to_toml().unwrap();
    assert!(saved.contains("\nend = 7000\n"), "{saved}");
}
