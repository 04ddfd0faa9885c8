//! Names and shapes of every network's parameters and buffers must be those of the reference's
//! state dicts (tests/golden/state_dicts): the contract for reading and writing checkpoints.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use udass_raw::config::{Config, NetworkConfig};
use udass_raw::nn::{Backbone, Segmentor};
use udass_raw::params::{ParamSpec, Spec};

/// Names and shapes, parameters before buffers, each in the order of the reference's modules.
type Shapes = Vec<(String, Vec<usize>)>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/state_dicts")
}

fn stored(name: &str) -> Shapes {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let entries: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let shapes = entries
        .into_iter()
        .map(|(name, entry)| (name, serde_json::from_value(entry["shape"].clone()).unwrap()));
    let buffer = |(name, _): &(String, Vec<usize>)| {
        ["running_mean", "running_var", "num_batches_tracked"].iter().any(|b| name.ends_with(b))
    };
    let (buffers, mut all): (Shapes, Shapes) = shapes.partition(buffer);
    all.extend(buffers);
    all
}

/// Returns the spec's entries with `prefix`, which every name has, removed.
fn shapes(spec: &Spec, prefix: &str) -> Shapes {
    let entry = |p: &ParamSpec| (p.name.strip_prefix(prefix).unwrap().into(), p.shape.clone());
    spec.params().iter().chain(spec.buffers()).map(entry).collect()
}

/// Returns the configuration of a network by its name in the files.
fn network(name: &str) -> NetworkConfig {
    let mut network = Config::load("gta_vit", &[]).unwrap().network;
    network.hrda.enabled = name.starts_with("hrda_");
    let name = name.trim_start_matches("hrda_");
    let (head, backbone) = name.split_once('_').unwrap();
    (network.head, network.channels) = match head {
        "daformer" => ("daformer".into(), 256),
        "dlv2red" => ("dlv2".into(), 256),
        "segformer" => ("segformer".into(), 768),
        other => panic!("head {other}"),
    };
    network.backbone = backbone_name(backbone);
    network
}

fn backbone_name(name: &str) -> String {
    match name {
        "r50v1c" => "resnet50_v1c".into(),
        "r101v1c" => "resnet101_v1c".into(),
        mit => mit.into(),
    }
}

#[test]
fn every_state_dict_is_that_of_the_network_here() {
    let mut files: Vec<String> = (std::fs::read_dir(folder()).unwrap())
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    for file in &files {
        let (name, mut wanted) = (file.trim_end_matches(".json"), stored(file));
        let here = if let Some(backbone) = name.strip_prefix("backbone_") {
            let mut config = network("daformer_mit_b0");
            config.backbone = backbone_name(backbone);
            let mut spec = Spec::default();
            Backbone::new(&mut spec, "backbone", &config).unwrap();
            shapes(&spec, "backbone.")
        } else if let Some(name) = name.strip_prefix("dacs_") {
            // A complete checkpoint holds student, teacher and ImageNet model, all with the same
            // layout.
            let of = |model: &str| -> Shapes {
                let name = |(name, shape): &(String, Vec<usize>)| {
                    Some((name.strip_prefix(model)?.to_string(), shape.clone()))
                };
                wanted.iter().filter_map(name).collect()
            };
            let models = ["model.", "ema_model.", "imnet_model."].map(of);
            assert_eq!(models.iter().map(Vec::len).sum::<usize>(), wanted.len());
            let [student, teacher, imagenet] = models;
            assert!(student == teacher && student == imagenet);
            wanted = student;
            shapes(Segmentor::new(&network(name)).unwrap().spec(), "")
        } else {
            shapes(Segmentor::new(&network(name)).unwrap().spec(), "")
        };
        assert_eq!(here.len(), wanted.len(), "{file}");
        for (here, wanted) in here.iter().zip(&wanted) {
            assert_eq!(here, wanted, "{file}");
        }
    }
    assert_eq!(files.len(), 17);
}
