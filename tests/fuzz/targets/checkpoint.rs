//! Checkpoints of runs: what resuming, evaluating, replaying and converting read from them.

use std::path::Path;

use serde_json::Value;
use udass_raw::checkpoint::convert::convert;
use udass_raw::checkpoint::identity::{complete, configuration, identify, iteration};
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::verify::verify;
use udass_raw::checkpoint::weights::{Network, load_backbone, load_network};
use udass_raw::checkpoint::{batch, moments, state};
use udass_raw::config::Config;
use udass_raw::data::inventory::Inventory;
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::ops::ImageNormalizer;
use udass_raw::params::Weights;
use udass_raw::run::train::resume::{ResumeOptions, check_configuration, check_data, check_log};
use udass_raw::uda::batch::BatchBuffers;
use udass_raw::uda::inputs::StepInputs;

use super::{file, place, preset};

/// What a run has on its device before it reads a checkpoint, except for what each parameter has
/// several times.
struct Run {
    config: Config,
    device: Device,
    weights: Weights,
    normalizer: ImageNormalizer,
    buffers: BatchBuffers,
}

impl Run {
    fn new() -> Run {
        let mut config = preset().clone();
        (config.data.crop, config.data.batch) = (4, 1);
        let device = Device::host(1).expect("a device");
        let network = Segmentor::new(&config.network).expect("a network");
        Run {
            weights: Weights::new(&device, network.spec(), false).expect("weights"),
            normalizer: ImageNormalizer::new(&device).expect("constants"),
            buffers: BatchBuffers::new(&device, &config).expect("buffers"),
            device,
            config,
        }
    }
}

/// The input is a file, or the header alone: few inputs would survive a change of the header's
/// length. Then the tensors are as long as it says, up to a limit.
fn whole(bytes: &[u8]) -> Vec<u8> {
    const MOST: u64 = 1 << 16;
    if !bytes.starts_with(b"{") {
        return bytes.into();
    }
    let header: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let ends = header.as_object().into_iter().flat_map(|tensors| tensors.values());
    let ends = ends.filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let data = vec![0; ends.max().unwrap_or(0).min(MOST) as usize];
    [&(bytes.len() as u64).to_le_bytes()[..], bytes, &data].concat()
}

pub fn checkpoint(bytes: &[u8]) {
    thread_local! {
        static RUN: std::cell::RefCell<Run> = std::cell::RefCell::new(Run::new());
    }
    let path = file(&whole(bytes));
    let Ok(file) = TensorFile::open(&path) else { return };
    RUN.with_borrow_mut(|run| resumed(run, &file));
    // `verify` and `eval`.
    let _ = (verify(&file), iteration(&file));
    if let Ok(identity) = identify(&file) {
        let _ = (identity.to_string(), complete(&file, &identity));
    }
    if let Ok(Some(text)) = configuration(&file) {
        let _ = Config::from_toml(&text, "fuzz");
    }
    converted(&file);
}

/// Reads what a resumed or replayed run, and one that begins with these weights, reads.
fn resumed(run: &mut Run, file: &TensorFile) {
    let Run { config, device, weights, normalizer, buffers } = run;
    let _ = check_configuration(config, file);
    let first = moments::first_update(file);
    let _ = ["model.", ""].map(|prefix| moments::names(file, prefix));
    if let Ok(position) = state::position(file) {
        let inputs = StepInputs::draw(config, position.next, *first.as_ref().unwrap_or(&0));
        assert_eq!(inputs.iteration, position.next);
        let _ = check_log(Path::new("/none"), file, &position);
        let none = Inventory::default();
        let _ = check_data(Path::new("/none"), &position, &none, ResumeOptions::default());
        if let Ok(batch) = batch::read(file, position.next) {
            // Buffers of this size take it, and all others refuse it.
            let _ = buffers.load(device, normalizer, (&batch).into());
        }
    }
    for network in [Network::Student, Network::Teacher] {
        let _ = load_network(file, device, weights, network);
    }
    let _ = load_backbone(file, device, weights);
}

/// Converts to each format. What was written must be read, and a torch file converted back.
fn converted(file: &TensorFile) {
    let (torch, back) = (place(".pth"), place(".safetensors"));
    if convert(file, &torch, None).is_ok() {
        let written = TensorFile::open(&torch).expect("what was converted is read");
        convert(&written, &back, None).expect("what was converted is converted back");
        TensorFile::open(&back).expect("what was converted back is read");
    }
    if convert(file, &back, None).is_ok() {
        TensorFile::open(&back).expect("what was copied is read");
    }
    for network in [Network::Student, Network::Teacher] {
        let _ = convert(file, &back, Some(network));
    }
}
