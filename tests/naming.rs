//! Tests weights under the names of other projects: every tensor arrives where the reference's file
//! would have put it, to the bit, whatever was stacked, split or reshaped on the way.

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;
use tempfile::TempDir;
use udass_raw::checkpoint::identity::{Kind, complete, identify};
use udass_raw::checkpoint::names::Naming;
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::weights::{Network, load_backbone, load_network};
use udass_raw::checkpoint::writer::{Entry, write};
use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::Weights;

#[derive(Clone)]
struct Named {
    name: String,
    shape: Vec<usize>,
    numbers: Vec<f32>,
}

impl Named {
    fn new(name: impl Into<String>, shape: &[usize], numbers: &[f32]) -> Named {
        Named { name: name.into(), shape: shape.into(), numbers: numbers.into() }
    }

    fn renamed(&self, name: impl Into<String>) -> Named {
        Named { name: name.into(), ..self.clone() }
    }

    /// The rows of a matrix, or elements of a vector, in `part` of `of` equal parts.
    fn part(&self, part: usize, of: usize, name: String) -> Named {
        let (rows, numbers) = (self.shape[0] / of, self.numbers.len() / of);
        let mut shape = self.shape.clone();
        shape[0] = rows;
        Named::new(name, &shape, &self.numbers[part * numbers..][..numbers])
    }
}

/// The state dict of a network in the reference's names. No two numbers of it are equal.
fn reference(config: &Config) -> Vec<Named> {
    let network = Segmentor::new(&config.network).unwrap();
    let spec = network.spec();
    let mut next = 0;
    let params = spec.params().iter().chain(spec.buffers());
    let params = params.filter(|param| !param.name.ends_with("num_batches_tracked"));
    let named = params.map(|param| {
        let n = param.shape.iter().product::<usize>();
        next += n;
        let numbers: Vec<f32> = (next - n..next).map(|i| i as f32).collect();
        Named::new(&param.name, &param.shape, &numbers)
    });
    named.collect()
}

fn only_backbone(all: &[Named]) -> Vec<Named> {
    let backbone = |named: &Named| Some(named.renamed(named.name.strip_prefix("backbone.")?));
    all.iter().filter_map(backbone).collect()
}

fn save(folder: &TempDir, tensors: &[Named]) -> TensorFile {
    let path = folder.path().join("file.safetensors");
    let entry = |named: &Named| {
        let numbers = named.numbers.clone();
        Entry {
            name: named.name.clone(),
            dtype: Dtype::F32,
            shape: named.shape.clone(),
            bytes: Box::new(move || Ok(numbers.iter().flat_map(|x| x.to_le_bytes()).collect())),
        }
    };
    write(&path, tensors.iter().map(entry).collect(), BTreeMap::new()).unwrap();
    TensorFile::open(&path).unwrap()
}

/// Loads a file, and compares everything that `wanted` accepts with the reference's numbers.
fn check(config: &Config, file: &TensorFile, backbone: bool, wanted: impl Fn(&str) -> bool) {
    let device = Device::host(1).unwrap();
    let network = Segmentor::new(&config.network).unwrap();
    let mut weights = Weights::new(&device, network.spec(), false).unwrap();
    match backbone {
        true => load_backbone(file, &device, &mut weights).unwrap(),
        false => load_network(file, &device, &mut weights, Network::Student).unwrap(),
    }
    let mut compared = 0;
    for expected in reference(config).iter().filter(|named| wanted(&named.name)) {
        let at = |params: &[udass_raw::params::ParamSpec]| {
            params.iter().position(|param| param.name == expected.name)
        };
        let found = match at(weights.spec().params()) {
            Some(at) => weights.export(&device, &weights.values, at).unwrap(),
            None => {
                let at = at(weights.spec().buffers()).unwrap();
                weights.export_buffer(&device, at).unwrap()
            }
        };
        assert!(found == expected.numbers, "{}", expected.name);
        compared += 1;
    }
    assert!(compared > 100, "{compared} tensors");
}

fn segformer() -> Config {
    let overrides = [
        "network.backbone=mit_b0",
        "network.head=segformer",
        "network.hrda.enabled=false",
        "network.channels=64",
    ];
    Config::load("gta_vit", &overrides.map(String::from)).unwrap()
}

/// Hugging Face's names of a MiT (`SegformerModel`) and of SegFormer's decoder.
fn hugging_face(all: &[Named]) -> Vec<Named> {
    let mut out = Vec::new();
    for named in all {
        let name = named.name.strip_prefix("backbone.").unwrap_or(&named.name);
        let parts: Vec<&str> = name.split('.').collect();
        let last = parts[parts.len() - 1];
        let stage = |part: &str| part[part.len() - 1..].parse::<usize>().unwrap() - 1;
        if parts[0].starts_with("patch_embed") {
            let what = if parts[1] == "norm" { "layer_norm" } else { "proj" };
            let stage = stage(parts[0]);
            let name = format!("segformer.encoder.patch_embeddings.{stage}.{what}.{last}");
            out.push(named.renamed(name));
        } else if parts[0].starts_with("norm") {
            let stage = stage(parts[0]);
            out.push(named.renamed(format!("segformer.encoder.layer_norm.{stage}.{last}")));
        } else if parts[0].starts_with("block") {
            let start = format!("segformer.encoder.block.{}.{}", stage(parts[0]), parts[1]);
            let what = match parts[2..parts.len() - 1].join(".").as_str() {
                "norm1" => "layer_norm_1",
                "norm2" => "layer_norm_2",
                "attn.q" => "attention.self.query",
                "attn.kv" => {
                    // Keys come first in the reference's stack.
                    for (part, what) in [(1, "value"), (0, "key")] {
                        let name = format!("{start}.attention.self.{what}.{last}");
                        out.push(named.part(part, 2, name));
                    }
                    continue;
                }
                "attn.proj" => "attention.output.dense",
                "attn.sr" => "attention.self.sr",
                "attn.norm" => "attention.self.layer_norm",
                "mlp.fc1" => "mlp.dense1",
                "mlp.fc2" => "mlp.dense2",
                "mlp.dwconv.dwconv" => "mlp.dwconv.dwconv",
                other => panic!("{other}"),
            };
            out.push(named.renamed(format!("{start}.{what}.{last}")));
        } else if parts[1].starts_with("conv_seg") {
            // It has no unused classifier.
        } else {
            let name = name.replace("linear_fuse.conv", "linear_fuse");
            let name = name.replace("linear_fuse.bn", "batch_norm");
            out.push(named.renamed(name.replace("linear_pred", "classifier")));
        }
    }
    out
}

/// The names that MMSegmentation's converter gives to the authors' weights of a MiT.
fn open_mmlab(backbone: &[Named]) -> Vec<Named> {
    let find = |name: String| backbone.iter().find(|named| named.name == name).unwrap();
    let mut out = Vec::new();
    for named in backbone {
        let parts: Vec<&str> = named.name.split('.').collect();
        let last = parts[parts.len() - 1];
        let stage = |part: &str| part[part.len() - 1..].parse::<usize>().unwrap() - 1;
        if parts[0].starts_with("patch_embed") {
            let what = if parts[1] == "proj" { "projection" } else { "norm" };
            out.push(named.renamed(format!("layers.{}.0.{what}.{last}", stage(parts[0]))));
            continue;
        }
        if parts[0].starts_with("norm") {
            out.push(named.renamed(format!("layers.{}.2.{last}", stage(parts[0]))));
            continue;
        }
        let start = format!("layers.{}.1.{}", stage(parts[0]), parts[1]);
        match parts[2..parts.len() - 1].join(".").as_str() {
            "attn.q" => {
                let kv = find(named.name.replace(".q.", ".kv."));
                let mut stacked = named.renamed(format!("{start}.attn.attn.in_proj_{last}"));
                stacked.shape[0] += kv.shape[0];
                stacked.numbers.extend(&kv.numbers);
                out.push(stacked);
            }
            "attn.kv" => {}
            "attn.proj" => out.push(named.renamed(format!("{start}.attn.attn.out_proj.{last}"))),
            what @ ("mlp.fc1" | "mlp.fc2") => {
                let layer = if what == "mlp.fc1" { 0 } else { 4 };
                let mut conv = named.renamed(format!("{start}.ffn.layers.{layer}.{last}"));
                if last == "weight" {
                    conv.shape.extend([1, 1]);
                }
                out.push(conv);
            }
            "mlp.dwconv.dwconv" => out.push(named.renamed(format!("{start}.ffn.layers.1.{last}"))),
            what => out.push(named.renamed(format!("{start}.{what}.{last}"))),
        }
    }
    out
}

#[test]
fn hugging_faces_mit_and_segformer() {
    let folder = TempDir::new().unwrap();
    let config = segformer();
    let all = reference(&config);
    // Trained on ImageNet, with a classifier.
    let mut pretrained = hugging_face(&all);
    pretrained.retain(|named| named.name.starts_with("segformer."));
    pretrained.push(Named::new("classifier.weight", &[10, 256], &[0.5; 2560]));
    pretrained.push(Named::new("classifier.bias", &[10], &[0.5; 10]));
    let file = save(&folder, &pretrained);
    let identity = identify(&file).unwrap();
    assert_eq!((identity.kind, identity.backbone), (Kind::Backbone, Some("mit_b0")));
    assert_eq!(identity.naming, Some(Naming::HuggingFace));
    assert!(identity.to_string().contains("mit_b0; names are Hugging Face's"), "{identity}");
    complete(&file, &identity).unwrap().unwrap();
    check(&config, &file, true, |name| name.starts_with("backbone."));

    // The whole network, from several GPUs.
    let mut whole = hugging_face(&all);
    whole.iter_mut().for_each(|named| named.name.insert_str(0, "module."));
    let file = save(&folder, &whole);
    let identity = identify(&file).unwrap();
    assert_eq!((identity.kind, identity.head), (Kind::Segmentor, Some("segformer")));
    assert_eq!((identity.classes, identity.channels), (Some(19), Some(64)));
    complete(&file, &identity).unwrap().unwrap();
    check(&config, &file, false, |name| !name.contains("conv_seg"));

    // Keys without values are no network; the error names what is missing.
    whole.retain(|named| !named.name.ends_with("block.0.1.attention.self.value.weight"));
    let file = save(&folder, &whole);
    let problem = complete(&file, &identity).unwrap().unwrap_err().to_string();
    assert!(problem.contains("block1.1.attn.kv.weight` is [32, 32], not [64, 32]"), "{problem}");
}

#[test]
fn open_mmlabs_mit() {
    let folder = TempDir::new().unwrap();
    let config = Config::load("toy_vit", &[]).unwrap();
    let mut tensors = open_mmlab(&only_backbone(&reference(&config)));
    for prefix in ["", "backbone."] {
        tensors.iter_mut().for_each(|named| named.name.insert_str(0, prefix));
        let file = save(&folder, &tensors);
        let identity = identify(&file).unwrap();
        assert_eq!((identity.kind, identity.backbone), (Kind::Backbone, Some("mit_b0")));
        assert_eq!(identity.naming, Some(Naming::OpenMmlab));
        complete(&file, &identity).unwrap().unwrap();
        check(&config, &file, true, |name| name.starts_with("backbone."));
    }
    // Its decoder is another one, and only the backbone can be had.
    let fusion = [64usize, 256, 1, 1];
    let name = "decode_head.fusion_conv.conv.weight";
    tensors.push(Named::new(name, &fusion, &vec![0.5; 64 * 256]));
    let file = save(&folder, &tensors);
    check(&config, &file, true, |name| name.starts_with("backbone."));
    let (device, network) = (Device::host(1).unwrap(), Segmentor::new(&config.network).unwrap());
    let mut weights = Weights::new(&device, network.spec(), false).unwrap();
    let problem = load_network(&file, &device, &mut weights, Network::Student).unwrap_err();
    assert!(problem.to_string().contains("OpenMMLab's SegFormer"), "{problem}");
}

#[test]
fn nvidias_trained_segformer() {
    let folder = TempDir::new().unwrap();
    let config = segformer();
    let mut tensors = reference(&config);
    for named in &mut tensors {
        for level in (0..4).rev() {
            let (from, to) = (format!("linear_c.{level}."), format!("linear_c{}.", level + 1));
            named.name = named.name.replace(&from, &to);
        }
    }
    let file = save(&folder, &tensors);
    let identity = identify(&file).unwrap();
    assert_eq!((identity.kind, identity.head), (Kind::Segmentor, Some("segformer")));
    assert_eq!(identity.naming, Some(Naming::Nvidia));
    complete(&file, &identity).unwrap().unwrap();
    check(&config, &file, false, |_| true);
}

/// Returns the error of loading these tensors as the backbone of `toy_cnn`.
fn refused(tensors: &[Named]) -> String {
    let folder = TempDir::new().unwrap();
    let config = Config::load("toy_cnn", &[]).unwrap();
    let (device, network) = (Device::host(1).unwrap(), Segmentor::new(&config.network).unwrap());
    let mut weights = Weights::new(&device, network.spec(), false).unwrap();
    load_backbone(&save(&folder, tensors), &device, &mut weights).unwrap_err().to_string()
}

#[test]
fn timms_resnet_c_and_what_only_looks_like_it() {
    let folder = TempDir::new().unwrap();
    let config = Config::load("toy_cnn", &[]).unwrap();
    let backbone = only_backbone(&reference(&config));
    let timm: Vec<Named> = (backbone.iter())
        .map(|named| {
            let name = named.name.replace("stem.7.", "bn1.");
            named.renamed(name.replace("stem.", "conv1."))
        })
        .collect();
    let file = save(&folder, &timm);
    let identity = identify(&file).unwrap();
    assert_eq!((identity.kind, identity.backbone), (Kind::Backbone, Some("resnet50_v1c")));
    assert_eq!(identity.naming, Some(Naming::Timm));
    check(&config, &file, true, |name| name.starts_with("backbone."));

    // A ResNet-D has the same stem; its shortcuts pool first.
    let shifted = |named: &Named| {
        let name = named.name.replace("downsample.1.", "downsample.2.");
        named.renamed(name.replace("downsample.0.", "downsample.1."))
    };
    let problem = refused(&timm.iter().map(shifted).collect::<Vec<_>>());
    assert!(problem.contains("ResNet-D") && problem.contains("v1c"), "{problem}");

    let mut torchvision: Vec<Named> =
        backbone.iter().filter(|named| !named.name.starts_with("stem.")).cloned().collect();
    torchvision.push(Named::new("conv1.weight", &[64, 3, 7, 7], &vec![0.5; 64 * 147]));
    torchvision.push(Named::new("bn1.weight", &[64], &[0.5; 64]));
    let problem = refused(&torchvision);
    assert!(problem.contains("torchvision's ResNet") && problem.contains("v1c"), "{problem}");
}

#[test]
fn a_teacher_alone_is_identified() {
    let folder = TempDir::new().unwrap();
    let mut tensors = reference(&Config::load("toy_vit", &[]).unwrap());
    tensors.iter_mut().for_each(|named| named.name.insert_str(0, "ema_model."));
    let file = save(&folder, &tensors);
    let identity = identify(&file).unwrap();
    assert_eq!((identity.student, identity.teacher), (false, true));
    assert_eq!((identity.backbone, identity.head), (Some("mit_b0"), Some("daformer")));
    complete(&file, &identity).unwrap().unwrap();
    tensors.retain(|named| named.name != "ema_model.backbone.norm3.bias");
    let problem = complete(&save(&folder, &tensors), &identity).unwrap().unwrap_err().to_string();
    assert!(problem.contains("ema_model.backbone.norm3.bias"), "{problem}");
}
