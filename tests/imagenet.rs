//! Tests loading a backbone's ImageNet weights in the layout of their publishers.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::Dtype;
use tempfile::TempDir;
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::weights::load_backbone;
use udass_raw::checkpoint::writer::{Entry, write};
use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::{ParamSpec, Weights};

/// The first number of a tensor, derived from its name so that a mix-up is noticed.
fn first(name: &str) -> f32 {
    name.len() as f32 + name.bytes().map(f32::from).sum::<f32>() / 4096.0
}

fn entry(name: &str, shape: &[usize], dtype: Dtype) -> Entry<'static> {
    let (n, start) = (shape.iter().product::<usize>(), first(name));
    let bytes = move || {
        Ok(match dtype {
            Dtype::I64 => 5i64.to_le_bytes().repeat(n),
            _ => (0..n).flat_map(|i| (start + (i % 7) as f32).to_le_bytes()).collect(),
        })
    };
    Entry { name: name.into(), dtype, shape: shape.into(), bytes: Box::new(bytes) }
}

struct Loaded {
    device: Device,
    weights: Weights,
}

/// Writes the backbone of `config` to a file, without the tensors that `keep` rejects and with
/// `more`, and loads it.
fn load(
    config: &Config,
    keep: impl Fn(&str) -> bool,
    more: &[(&str, &[usize])],
) -> Result<Loaded, String> {
    let device = Device::host(1).unwrap();
    let network = Segmentor::new(&config.network).unwrap();
    let mut weights = Weights::new(&device, network.spec(), false).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("imagenet.safetensors");
    let backbone = |p: &ParamSpec| Some((p.name.strip_prefix("backbone.")?.to_string(), p.clone()));
    let spec = network.spec();
    let mut entries: Vec<Entry> = (spec.params().iter().chain(spec.buffers()))
        .filter_map(backbone)
        .filter(|(name, _)| keep(name))
        .map(|(name, p)| {
            let dtype = if p.shape.is_empty() { Dtype::I64 } else { Dtype::F32 };
            entry(&name, &p.shape, dtype)
        })
        .collect();
    entries.extend(more.iter().map(|(name, shape)| entry(name, shape, Dtype::F32)));
    write(Path::new(&path), entries, BTreeMap::new()).unwrap();
    let file = TensorFile::open(&path).unwrap();
    load_backbone(&file, &device, &mut weights).map_err(|e| e.to_string())?;
    Ok(Loaded { device, weights })
}

impl Loaded {
    fn param(&self, name: &str) -> f32 {
        let Loaded { device, weights } = self;
        let at = weights.spec().params().iter().position(|p| p.name == name).unwrap();
        weights.export(device, &weights.values, at).unwrap()[0]
    }

    fn buffer(&self, name: &str) -> f32 {
        let Loaded { device, weights } = self;
        let at = weights.spec().buffers().iter().position(|p| p.name == name).unwrap();
        weights.export_buffer(device, at).unwrap()[0]
    }
}

fn resnet() -> Config {
    Config::load("toy_cnn", &[]).unwrap()
}

#[test]
fn a_resnet_of_openmmlab_with_its_classifier() {
    let classifier: &[(&str, &[usize])] = &[("fc.weight", &[10, 2048]), ("fc.bias", &[10])];
    let loaded = load(&resnet(), |_| true, classifier).unwrap();
    for name in ["stem.6.weight", "layer1.0.downsample.1.bias", "layer4.2.conv3.weight"] {
        assert_eq!(loaded.param(&format!("backbone.{name}")), first(name), "{name}");
    }
    let name = "layer3.5.bn2.running_var";
    assert_eq!(loaded.buffer(&format!("backbone.{name}")), first(name));
    assert_eq!(loaded.buffer("backbone.stem.1.num_batches_tracked"), 5.0);
    // The head is not part of the backbone.
    assert_eq!(loaded.param("decode_head.head.aspp_modules.0.conv.weight"), 0.0);
}

#[test]
fn counts_of_batches_may_all_be_absent_and_nothing_else() {
    let counted = |name: &str| name.ends_with("num_batches_tracked");
    let loaded = load(&resnet(), |name| !counted(name), &[]).unwrap();
    assert_eq!(loaded.param("backbone.stem.0.weight"), first("stem.0.weight"));
    let problem = load(&resnet(), |name| name != "layer2.1.bn3.running_mean", &[]).err().unwrap();
    assert!(problem.contains("1 tensor missing: backbone.layer2.1.bn3.running_mean"), "{problem}");
    let problem = load(&resnet(), |_| true, &[("layer5.0.conv1.weight", &[1])]).err().unwrap();
    assert!(problem.contains("1 tensor extra: backbone.layer5.0.conv1.weight"), "{problem}");
}

#[test]
fn weights_of_another_network_are_refused() {
    let vit = Config::load("toy_vit", &[]).unwrap();
    let problem = load(&vit, |name| !name.starts_with("block1"), &[]).err().unwrap();
    assert!(problem.contains("missing: backbone.block1.0."), "{problem}");
}
