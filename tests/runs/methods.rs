//! Tests the methods on both networks: what an iteration of each consists of, and that it
//! learns.

use udass_raw::config::{Config, METHODS};
use udass_raw::data::loader::Loader;
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::Weights;
use udass_raw::run::train::initial_state;
use udass_raw::uda::report::Report;
use udass_raw::uda::state::TrainingState;

use crate::support::{command, folder, settings, stderr, text, world};

/// The toy preset with a method's switches at the smallest size; QuadMix starts as soon as there
/// are templates, and contrast in the same iteration.
fn config(preset: &str, method: &str, more: &[&str]) -> Config {
    let own = ["quadmix.start=1", "contrast.start=1", "device.threads=2"];
    let sets: Vec<String> =
        settings().into_iter().chain(own.iter().chain(more).map(|set| set.to_string())).collect();
    Config::load_with(preset, Some(method), &sets).unwrap()
}

/// Runs two iterations; returns their reports, and the parameters and the teacher.
fn two_iterations(config: &Config) -> (Vec<Report>, [Vec<f32>; 3]) {
    let device = Device::host(2).unwrap();
    let mut training = initial_state::build(config, &device, None).unwrap();
    let mut loader = Loader::new(config, 0).unwrap();
    let before = device.read_f32(&training.student.values).unwrap();
    let reports = (0..2)
        .map(|iteration| training.step(&loader.next().unwrap(), iteration).unwrap())
        .collect();
    let after = device.read_f32(&training.student.values).unwrap();
    let teacher = training
        .teacher
        .as_ref()
        .map_or(Vec::new(), |teacher| device.read_f32(&teacher.values).unwrap());
    (reports, [before, after, teacher])
}

#[test]
fn each_method_learns_from_its_own_losses() {
    for preset in ["toy_vit", "toy_cnn"] {
        for method in METHODS {
            let config = config(preset, method, &[]);
            let (reports, [before, after, teacher]) = two_iterations(&config);
            let hrda = !["source_only", "dacs", "daformer", "sepico"].contains(&method);
            let passes: [&[&str]; 2] = match method {
                "source_only" => [&[""], &[""]],
                "dacs" | "daformer" | "hrda" | "sepico" => [&["", "mix."], &["", "mix."]],
                "mic" => [&["", "mix.", "masked."], &["", "mix.", "masked."]],
                _ => [&["", "mix.", "masked."], &["", "mix_tss.", "mix_tst.", "masked."]],
            };
            for (t, (report, passes)) in reports.iter().zip(passes).enumerate() {
                assert!(!report.failed, "{preset}, {method}, iteration {t}");
                let losses: Vec<&str> = (report.terms.iter())
                    .map(|(name, _)| name.as_str())
                    .filter(|name| name.ends_with("loss_seg"))
                    .collect();
                let parts: &[&str] = if hrda { &["decode.", "decode.hr."] } else { &["decode."] };
                let expected: Vec<String> = passes
                    .iter()
                    .flat_map(|pass| parts.iter().map(move |part| format!("{pass}{part}loss_seg")))
                    .collect();
                assert_eq!(losses, expected, "{preset}, {method}, iteration {t}");
                let value = |name: &str| report.terms.iter().find(|t| t.0 == name).map(|t| t.1);
                assert!(value("decode.loss_seg").unwrap() > 0.1, "{preset}, {method}");
                for name in ["src.aux.loss_cl", "tgt.aux.loss_cl"] {
                    let contrasted = method == "sepico" && t == 1;
                    assert_eq!(value(name).is_some(), contrasted, "{preset}, {method}: {name}");
                }
                let weight = value("pseudo_label.weight");
                assert_eq!(weight.is_some(), method != "source_only", "{preset}, {method}");
            }
            let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count();
            assert!(2 * moved > before.len(), "{preset}, {method}: {moved} of {}", before.len());
            assert!(after.iter().all(|x| x.is_finite()), "{preset}, {method}");
            assert_eq!(teacher.is_empty(), method == "source_only");
            assert!(teacher != after, "{preset}, {method}: the teacher lags behind");
        }
    }
}

/// The stored iterations cover the feature distance on a MiT only.
#[test]
fn a_resnets_features_are_kept_near_the_frozen_ones_which_stay() {
    for (method, classes) in [("daformer", 0..19), ("hrda", 0..19), ("daformer", 0..0)] {
        let mut config = config("toy_cnn", method, &[]);
        // Without classes, every position counts, even where no class has a majority.
        config.feature_distance.min_share = if classes.is_empty() { 1.0 } else { 0.0 };
        config.feature_distance.classes = classes.collect();
        let device = Device::host(2).unwrap();
        let network = Segmentor::new(&config.network).unwrap();
        let weights = |seed, learns| {
            let mut weights = Weights::new(&device, network.spec(), learns).unwrap();
            weights.initialize(&device, seed).unwrap();
            weights
        };
        let (student, frozen) = (weights(1, true), weights(2, false));
        let state = |w: &Weights| {
            [&w.values, &w.buffers, &w.pending].map(|part| device.read_f32(part).unwrap())
        };
        let before = state(&frozen);
        let mut training =
            TrainingState::new(&device, &config, network, student, Some(frozen)).unwrap();
        let mut loader = Loader::new(&config, 0).unwrap();
        let report = training.step(&loader.next().unwrap(), 0).unwrap();
        assert!(!report.failed, "{method}");
        let distance = report.terms.iter().find(|t| t.0 == "src.loss_imnet_feat_dist");
        assert!(distance.unwrap().1 > 1e-3, "{method}: {distance:?}");
        assert!(state(training.imagenet.as_ref().unwrap()) == before, "{method}");
    }
}

#[test]
fn synthia_is_a_source_as_gta_is() {
    let source = format!("source.root={}", world().join("synthia").display());
    for preset in ["toy_vit", "toy_cnn"] {
        // Classes that SYNTHIA lacks cannot be pasted.
        let more = ["source.layout=synthia", &source, "quadmix.classes=[3, 3, 5, 6, 12, 17]"];
        let (reports, [before, after, _]) = two_iterations(&config(preset, "quadmix", &more));
        assert!(reports.iter().all(|report| !report.failed), "{preset}");
        assert!(reports[1].terms.iter().any(|(name, _)| name == "mix_tst.decode.loss_seg"));
        assert_ne!(before, after, "{preset}");
    }
    let more = ["source.layout=synthia", &source, "quadmix.classes=[3, 9]"];
    let refused = Loader::new(&config("toy_vit", "quadmix", &more), 0).err().unwrap().to_string();
    assert!(refused.contains("no image contains class 9 of quadmix.classes"), "{refused}");
}

#[test]
fn segformers_head_learns_on_both_backbones() {
    for backbone in ["mit_b0", "resnet50_v1c"] {
        let network = ["network.head=segformer", &format!("network.backbone={backbone}")[..]];
        let config = config("toy_vit", "dacs", &network);
        let (reports, [before, after, _]) = two_iterations(&config);
        assert!(reports.iter().all(|report| !report.failed), "{backbone}");
        assert_ne!(before, after, "{backbone}");
    }
}

#[test]
fn a_method_is_named_on_the_command_line() {
    let out = folder();
    let args = ["--method", "dacs", "--max-iters", "2", "--out", text(out.path())];
    let output = command("train", &args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("DACS: daformer mit_b0"), "{said}");
    let output = command("train", &["--method", "dac"]).output().unwrap();
    assert!(stderr(&output).contains("'dac' for '--method <METHOD>'"), "{}", stderr(&output));
    // The checkpoint is a single-scale network, which does not fit the other method's network.
    let checkpoint = ["--checkpoint", text(out.path())];
    let refused = command("eval", &checkpoint).output().unwrap();
    assert!(stderr(&refused).contains("does not match this network"), "{}", stderr(&refused));
    let args = [&checkpoint[..], &["--method", "dacs"]].concat();
    let output = command("eval", &args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
