//! Keys of earlier versions: what they become, what the user is told, and where they count.

use std::fs;

use udass_raw::config::{Config, renamed_keys, with_current_keys};

use super::{file, file_refusal, load, preset, refusal, set};

/// The TOML of a whole configuration, as a tree.
fn tree(config: &Config) -> toml::Table {
    config.to_toml().unwrap().parse().unwrap()
}

fn value<'t>(tree: &'t toml::Table, key: &str) -> Option<&'t toml::Value> {
    match key.split_once('.') {
        Some((section, rest)) => value(tree.get(section)?.as_table()?, rest),
        None => tree.get(key),
    }
}

/// Old key with a value, new key with what it becomes.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("device.graph", "false", "device.cuda_graph", "false"),
    ("source.fit", "[1280, 720]", "source.resize", "[1280, 720]"),
    ("target.fit", "[1024, 512]", "target.resize", "[1024, 512]"),
    ("eval.fit", "[1024, 512]", "eval.resize", "[1024, 512]"),
    ("network.recompute", "true", "network.activation_checkpointing", "true"),
    ("network.join_passes", "true", "network.batch_student_passes", "true"),
    ("teacher.alpha", "0.99", "teacher.ema_decay", "0.99"),
    ("augment.jitter_threshold", "0.25", "augment.jitter_prob", "0.75"),
    ("augment.jitter_threshold", "0.2", "augment.jitter_prob", "0.8"),
    ("augment.jitter_threshold", "0.9", "augment.jitter_prob", "0.1"),
    ("augment.jitter_threshold", "0", "augment.jitter_prob", "1.0"),
    ("augment.blur_threshold", "1.0", "augment.blur_prob", "0.0"),
    ("augment.blur_threshold", "0.968", "augment.blur_prob", "0.032"),
    ("mix.released_unlabelled", "false", "mix.released_unlabeled", "false"),
    ("quadmix.released_colours", "false", "quadmix.released_colors", "false"),
];

#[test]
fn each_old_key_is_read_in_an_override() {
    for (old, was, new, is) in CASES {
        let config = set(&[&format!("{old}={was}")]).unwrap_or_else(|e| panic!("{old}: {e}"));
        assert_eq!(value(&tree(&config), new).unwrap().to_string(), *is, "{old} = {was}");
        let told =
            format!("warning: --set {old}={was}: `{old}` is now `{new}`, read as {new} = {is}");
        assert_eq!(config.notes.lines(), [told]);
        assert_eq!(config, set(&[&format!("{new}={is}")]).unwrap(), "{old}");
    }
}

#[test]
fn each_old_key_is_read_in_a_file_and_below_it() {
    for (old, was, new, is) in CASES {
        let (section, key) = old.rsplit_once('.').unwrap();
        let (folder, path) = file(&format!("\n[{section}]\n  {key} = {was}  # so far\n"));
        let config = load(&path).unwrap_or_else(|e| panic!("{old}: {e}"));
        assert_eq!(value(&tree(&config), new).unwrap().to_string(), *is, "{old} = {was}");
        let told = format!(
            "warning: {}:4:3: `{old}` is now `{new}`, read as {new} = {is}",
            path.display()
        );
        assert_eq!(config.notes.lines(), [told.as_str()]);
        // In a file that another one is based on.
        let child = folder.path().join("child.toml");
        fs::write(&child, "base = \"mine\"\nseed = 5\n").unwrap();
        let config = load(&child).unwrap();
        assert_eq!(value(&tree(&config), new).unwrap().to_string(), *is, "{old} = {was}");
        assert_eq!(config.notes.lines(), [told.as_str()]);
        // The other one has the new key.
        fs::write(&child, "base = [\"toy_vit\", \"mine\"]\nseed = 5\n").unwrap();
        assert_eq!(value(&tree(&load(&child).unwrap()), new).unwrap().to_string(), *is, "{old}");
    }
}

#[test]
fn every_rename_has_a_case_and_leads_to_a_key() {
    let known = tree(&preset("gta_vit"));
    for (old, new, _) in renamed_keys() {
        let inside = old.starts_with("optimizer.rules") || old == "method";
        assert!(inside || CASES.iter().any(|case| case.0 == old), "{old} has no case");
        assert!(value(&known, old).is_none(), "{old} is a key again");
        for new in new {
            let new = new.replace("param_groups.", "param_groups\u{0}");
            let (key, inner) = new.split_once('\u{0}').unwrap_or((&new, ""));
            let value = value(&known, key).unwrap_or_else(|| panic!("{new} is no key"));
            assert!(inner.is_empty() || value[0].get(inner).is_some(), "{new} is no key");
        }
    }
}

#[test]
fn a_method_is_read_as_the_switches_that_it_was() {
    for (method, switches) in [
        ("source_only", [false, false, false]),
        ("dacs", [true, false, false]),
        ("mic", [true, true, false]),
        ("quadmix", [true, true, true]),
    ] {
        let [teacher, mask, quadmix] = switches;
        let read = |config: &Config| {
            let stages = config.stages();
            assert_eq!([stages.teacher, stages.mask, stages.quadmix], switches, "{method}");
            let told = format!(
                "`method` is now `teacher.enabled`, `mask.enabled` and `quadmix.enabled`, read as \
                 teacher.enabled = {teacher}, mask.enabled = {mask}, quadmix.enabled = {quadmix}"
            );
            assert!(config.notes.lines()[0].ends_with(&told), "{:?}", config.notes);
            // All else stays as it is.
            let mut same = preset("gta_vit");
            same.teacher.enabled = teacher;
            (same.mask.enabled, same.quadmix.enabled) = (mask, quadmix);
            (same.run, same.seed) = (config.run.clone(), config.seed);
            assert_eq!(*config, same, "{method}");
        };
        read(&set(&[&format!("method={method}")]).unwrap());
        read(&set(&[&format!("method = \"{method}\"")]).unwrap());
        let (folder, path) = file(&format!("method = \"{method}\"\n[mask]\nratio = 0.7\n"));
        read(&load(&path).unwrap());
        let child = folder.path().join("child.toml");
        fs::write(&child, "base = \"./mine.toml\"\nseed = 5\n").unwrap();
        read(&load(&child).unwrap());
    }
    // Between layers the upper one wins.
    let config = set(&["method=source_only", "teacher.enabled=true"]).unwrap();
    assert_eq!(config.stages().method(), "hrda");
    let config = set(&["quadmix.enabled=true", "method=mic"]).unwrap();
    assert_eq!(config.stages().method(), "mic");
    let told = file_refusal("method = \"mic\"\nmask.enabled = false\n");
    assert!(
        told.starts_with("mine.toml:2:1: `method`: is the old name of `mask.enabled`, which is"),
        "{told}"
    );
    assert_eq!(
        refusal(&["method=daformer"]),
        "--set method=daformer: `method`: expected \"source_only\" or \"dacs\" or \"mic\" or \
         \"quadmix\", got \"daformer\" (the key is now `teacher.enabled`, `mask.enabled` and \
         `quadmix.enabled`)"
    );
}

#[test]
fn parameter_groups_are_read_by_their_old_names() {
    let groups = |config: &Config| -> Vec<(String, f64, f64)> {
        let groups = config.optimizer.param_groups.iter();
        groups.map(|g| (g.contains.clone(), g.lr_mult, g.decay_mult)).collect()
    };
    let expected = [("norm".to_string(), 1.0, 0.0), ("head".to_string(), 2.0, 1.0)];
    let (_folder, path) = file(
        "[[optimizer.rules]]\ncontains = \"norm\"\ndecay = 0.0\n\
         [[optimizer.rules]]\ncontains = \"head\"\nlr = 2.0\n",
    );
    let config = load(&path).unwrap();
    assert_eq!(groups(&config), expected);
    let told = config.notes.lines().join("\n").replace(&path.display().to_string(), "mine.toml");
    assert_eq!(
        told,
        "warning: mine.toml:2:13: `optimizer.rules` is now `optimizer.param_groups`, read as \
         optimizer.param_groups = [{ contains = \"norm\", decay_mult = 0.0 }, \
         { contains = \"head\", lr_mult = 2.0 }]\n\
         warning: mine.toml:4:1: `optimizer.rules.decay` is now \
         `optimizer.param_groups.decay_mult`, read as optimizer.param_groups.decay_mult = 0.0\n\
         warning: mine.toml:7:1: `optimizer.rules.lr` is now `optimizer.param_groups.lr_mult`, \
         read as optimizer.param_groups.lr_mult = 2.0"
    );
    let rules = "optimizer.rules=[{contains=\"norm\", decay=0}, {contains=\"head\", lr=2}]";
    assert_eq!(groups(&set(&[rules]).unwrap()), expected);
    // The list's new name with the old names inside.
    let (_folder, path) = file("[[optimizer.param_groups]]\ncontains = \"head\"\nlr = 2.0\n");
    assert_eq!(groups(&load(&path).unwrap()), expected[1..]);
}

#[test]
fn both_names_in_one_layer_are_one_too_many() {
    for (old, was, new, is) in CASES {
        let section = old.rsplit_once('.').unwrap().0;
        let (old_key, new_key) = (old.rsplit_once('.').unwrap().1, new.rsplit_once('.').unwrap().1);
        let told = file_refusal(&format!("[{section}]\n{new_key} = {is}\n{old_key} = {was}\n"));
        let expected =
            format!("mine.toml:4:1: `{old}`: is the old name of `{new}`, which is set too: keep");
        assert!(told.starts_with(&expected), "{told}");
    }
    let told = refusal(&["augment={jitter_prob=0.5, jitter_threshold=0.5}"]);
    assert!(told.starts_with("--set augment={jitter_prob=0.5, jitter_threshold=0.5}: `augment.j"));
}

#[test]
fn between_layers_the_upper_one_wins_whatever_its_keys_are_called() {
    let old = "augment.jitter_threshold=0.25";
    let new = "augment.jitter_prob=0.5";
    assert_eq!(set(&[new, old]).unwrap().augment.jitter_prob, 0.75);
    assert_eq!(set(&[old, new]).unwrap().augment.jitter_prob, 0.5);
    let (_folder, path) = file("[augment]\njitter_prob = 0.125\n");
    let path = path.to_str().unwrap();
    assert_eq!(Config::load(path, &[old.into()]).unwrap().augment.jitter_prob, 0.75);
}

#[test]
fn old_keys_with_wrong_values_are_told_where_they_stand() {
    let told = file_refusal("[augment]\njitter_threshold = 1.5\n");
    assert!(
        told.starts_with(
            "mine.toml:3:1: `augment.jitter_threshold`: expected a number from 0 to 1, got 1.5 \
             (the key is now `augment.jitter_prob`)"
        ),
        "{told}"
    );
    for (text, expected) in [
        ("augment.blur_threshold=high", "`augment.blur_prob`: expected a number, got string"),
        ("device.graph=1", "`device.cuda_graph`: expected true or false, got `1`"),
        ("source.fit=[0, 5]", "`source.resize`: expected [width, height], each at least 1"),
        ("teacher.alpha=1.5", "`teacher.ema_decay`: expected a number from 0 to 1, got 1.5"),
        ("optimizer.rules=3", "`optimizer.param_groups`: expected a list in [ ], got `3`"),
        (
            "optimizer.rules=[{contain=\"x\"}]",
            "`optimizer.param_groups.contain`: unknown key; did you mean \
             `optimizer.param_groups.contains`?",
        ),
    ] {
        let told = refusal(&[text]);
        assert!(told.starts_with(&format!("--set {text}: {expected}")), "{told}");
    }
}

#[test]
fn a_run_of_an_earlier_version_is_the_same_run() {
    let now = set(&["teacher.ema_decay=0.99", "augment.jitter_prob=0.7654321"]).unwrap();
    let text = now.to_toml().unwrap();
    let earlier = in_old_words(&text);
    assert_eq!(now.differences(&earlier).unwrap(), [""; 0], "{earlier}");
    assert_eq!(Config::from_toml(&earlier, "saved").unwrap(), now);
    let other = set(&["augment.jitter_prob=0.5"]).unwrap();
    assert_eq!(
        other.differences(&earlier).unwrap(),
        [
            "augment.jitter_prob (then augment.jitter_threshold): was 0.7654321, is 0.5",
            "teacher.ema_decay (then teacher.alpha): was 0.99, is 0.999",
        ]
    );
    let source_only =
        set(&["teacher.enabled=false", "mask.enabled=false", "quadmix.enabled=false"]);
    let differences = source_only.unwrap().differences(&earlier).unwrap();
    assert!(differences.contains(&"mask.enabled (then method): was true, is false".to_string()));
    let broken = earlier.replace("jitter_threshold = 0.2345679", "jitter_threshold = 7");
    let told = now.differences(&broken).unwrap_err().to_string();
    assert!(told.contains("the saved configuration: `augment.jitter_threshold`: expected a"));
}

#[test]
fn configurations_in_logs_and_evaluations_get_todays_keys() {
    let text = fs::read_to_string("tests/formats/evaluation.json").unwrap();
    let evaluation: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut known = serde_json::to_value(preset("toy_vit")).unwrap();
    // Added since, and no part of what an earlier version wrote.
    for (section, key) in [
        ("/data", "photometric_distortion"),
        ("/network/hrda", "attention"),
        ("/network/hrda", "context_scale"),
        ("/network/hrda", "overlap"),
        ("/mask", "labels"),
        ("/mask", "confidence_weight"),
        ("/run", "image_interval"),
        ("/run", "keep_best"),
        ("/run", "tensorboard"),
        ("/device", "memory_limit"),
        ("/source", "skip_unlabeled"),
        ("/target", "skip_unlabeled"),
        ("/network", "projection"),
        ("/augment", "unmixed"),
        ("", "contrast"),
        ("", "class_balanced_crop"),
        ("", "parallel"),
    ] {
        known.pointer_mut(section).unwrap().as_object_mut().unwrap().remove(key);
    }
    for which in ["configuration", "training"] {
        let converted = with_current_keys(evaluation[which].clone()).unwrap();
        assert_eq!(keys(&converted), keys(&known), "{which}");
        assert_eq!(converted["augment"]["jitter_prob"], 0.75);
        assert_eq!(converted["quadmix"]["enabled"], true);
        assert_eq!(with_current_keys(converted.clone()).unwrap(), converted);
    }
    let told = with_current_keys(serde_json::json!({"method": "x"})).unwrap_err().to_string();
    assert!(told.contains("`method`: expected \"source_only\""), "{told}");
}

/// The paths of all values.
fn keys(value: &serde_json::Value) -> Vec<String> {
    let mut keys = match value {
        serde_json::Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| keys(value).into_iter().map(move |k| format!("{name}.{k}")))
            .collect(),
        serde_json::Value::Array(items) if items.first().is_some_and(|item| item.is_object()) => {
            keys(&items[0])
        }
        _ => vec![String::new()],
    };
    keys.sort();
    keys
}

/// The same configuration as version 0.1.0 would have written it.
fn in_old_words(text: &str) -> String {
    let mut text = text.replace("jitter_prob = 0.7654321", "jitter_threshold = 0.2345679");
    let end = "enabled = true\n";
    for section in ["[teacher]\n", "[mask]\n", "[quadmix]\n"] {
        text = text.replace(&format!("{section}{end}"), section);
    }
    text = text.replacen("seed = 1\n", "seed = 1\nmethod = \"quadmix\"\n", 1);
    for (new, old) in [
        ("\nblur_prob = 0.5", "\nblur_threshold = 0.5"),
        ("\ncuda_graph = ", "\ngraph = "),
        ("\nactivation_checkpointing = ", "\nrecompute = "),
        ("\nbatch_student_passes = ", "\njoin_passes = "),
        ("\nreleased_unlabeled = ", "\nreleased_unlabelled = "),
        ("\nreleased_colors = ", "\nreleased_colours = "),
        ("\nema_decay = ", "\nalpha = "),
        ("optimizer.param_groups", "optimizer.rules"),
        ("\nlr_mult = ", "\nlr = "),
        ("\ndecay_mult = ", "\ndecay = "),
        ("\nresize = [2560, 1440]", "\nfit = [2560, 1440]"),
    ] {
        assert!(text.contains(new), "{new} in\n{text}");
        text = text.replace(new, old);
    }
    text
}
