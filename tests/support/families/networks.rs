//! Networks in evaluation: backbones, heads, HRDA's parts, sliding windows.

use std::rc::Rc;

use udass_raw::config::{HrdaConfig, NetworkConfig, ScaleAttention};
use udass_raw::device::Device;
use udass_raw::nn::{Backbone, BatchNormMode, Head, Pass, Role, Segmentor};
use udass_raw::ops::{self, Windows};
use udass_raw::params::{Spec, Weights};
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

use super::layout::{compare_map, softmax, to_reference, upload_image};
use super::said;
use crate::support::cases::{Case, Outcome};
use crate::support::formula;
use crate::support::report::Report;

const CLASSES: usize = 19;

/// The network of a case's `arch`, with the matching head and without dropout; HRDA if there is a
/// detail crop.
pub fn network_config(arch: &str, detail_crop: Option<usize>) -> NetworkConfig {
    let (backbone, head) = match arch {
        "r50" => ("resnet50_v1c", "dlv2"),
        "r101" => ("resnet101_v1c", "dlv2"),
        mit => (mit, "daformer"),
    };
    NetworkConfig {
        backbone: backbone.into(),
        head: head.into(),
        classes: CLASSES,
        channels: 256,
        dilations: vec![6, 12],
        projection: 0,
        drop_path: 0.0,
        dropout: 0.0,
        activation_checkpointing: false,
        batch_student_passes: false,
        hrda: HrdaConfig {
            attention: ScaleAttention::Learned,
            overlap: true,
            context_scale: 0.5,
            enabled: detail_crop.is_some(),
            detail_crop: detail_crop.unwrap_or(0),
            divisible: 8,
            released_offsets: true,
            detail_loss: 0.1,
        },
    }
}

/// Fills every parameter and buffer from the formula, by `prefix` and its own name.
pub fn fill(
    device: &Device,
    spec: &Rc<Spec>,
    learns: bool,
    prefix: &str,
    scale: &[(String, f32)],
) -> Outcome<Weights> {
    let mut weights = Weights::new(device, spec, learns).map_err(said)?;
    let value = |name: &str, shape: &[usize]| {
        if name.ends_with("num_batches_tracked") {
            return Some(vec![0.0]);
        }
        formula::scaled_weight(&format!("{prefix}{name}"), shape, scale)
    };
    let unknown = |p: &&udass_raw::params::ParamSpec| value(&p.name, &p.shape).is_none();
    if let Some(p) = spec.params().iter().chain(spec.buffers()).find(unknown) {
        return Err(format!("the formula has no rule for {}", p.name));
    }
    weights.load(device, |p| Ok(value(&p.name, &p.shape))).map_err(said)?;
    Ok(weights)
}

/// Returns the segmentor of a case, filled from the formula.
pub fn segmentor(case: &Case, device: &Device, learns: bool) -> Outcome<(Segmentor, Weights)> {
    let arch: String = case.read(&["arch"])?;
    let detail = match case.config.get("hr_crop") {
        None => None,
        Some(_) => match case.read::<[usize; 2]>(&["hr_crop"])? {
            [h, w] if h == w => Some(h),
            [h, w] => return Err(format!("a detail crop of {h}x{w} is not square")),
        },
    };
    let network = Segmentor::new(&network_config(&arch, detail)).map_err(said)?;
    let weights = fill(device, network.spec(), learns, "", &case.weight_scale()?)?;
    Ok((network, weights))
}

pub fn evaluating<'a>(tape: &'a Tape, weights: &'a Weights) -> Pass<'a> {
    Pass { tape, weights, batch_norm: BatchNormMode::Eval, dropout_rng: None }
}

/// Returns batch, height and width of a case's image.
pub fn image_size(case: &Case) -> Outcome<[usize; 3]> {
    Ok([case.read(&["batch"])?, case.read(&["H"])?, case.read(&["W"])?])
}

/// Returns the image of a case, from the formula.
pub fn formula_image(case: &Case, device: &Device, name: &str) -> Outcome<Tensor> {
    let [b, h, w] = image_size(case)?;
    let pixels = formula::image(&case.input(name), b * 3 * h * w);
    upload_image(device, [b, 3, h, w], &pixels)
}

pub fn backbone(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let name: String = case.read(&["backbone"])?;
    let mut spec = Spec::default();
    let config = network_config(&name, None);
    let network = Backbone::new(&mut spec, "backbone", &config).map_err(said)?;
    let weights = fill(device, &Rc::new(spec), false, "", &case.weight_scale()?)?;
    let tape = Tape::inference(device);
    let image = formula_image(case, device, "img")?;
    let features = network.forward(&evaluating(&tape, &weights), &image).map_err(said)?;
    for (i, feature) in features.iter().enumerate() {
        compare_map(report, &format!("feat{i}"), device, feature)?;
    }
    Ok(())
}

pub fn head(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let kind: String = case.read(&["head"])?;
    let shapes: [Option<[usize; 4]>; 4] = case.read(&["feat_shapes"])?;
    let mut config = network_config("mit_b0", None);
    if kind == "segformer" {
        config.channels = 768;
    }
    config.head = kind;
    let mut spec = Spec::default();
    let widths = shapes.map(|shape| shape.map_or(0, |[_, channels, ..]| channels));
    let role = Role::Classes;
    let head = Head::new(&mut spec, "decode_head", widths, &config, role, 0).map_err(said)?;
    let weights = fill(device, &Rc::new(spec), false, "", &case.weight_scale()?)?;
    let feature = |i: usize| {
        // A head that uses only the last level has no other shapes stored.
        let shape = shapes[i].unwrap_or([1; 4]);
        let values = formula::image(&case.input(&format!("feat{i}")), shape.iter().product());
        ops::to_operand(device, &upload_image(device, shape, &values)?).map_err(said)
    };
    let features = [feature(0)?, feature(1)?, feature(2)?, feature(3)?];
    let tape = Tape::inference(device);
    let logits = head.forward(&evaluating(&tape, &weights), &features).map_err(said)?;
    compare_map(report, "logits", device, &logits)?;
    Ok(())
}

pub fn hrda_eval(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let (network, weights) = segmentor(case, device, false)?;
    let [batch, height, width] = image_size(case)?;
    let tape = Tape::inference(device);
    let image = formula_image(case, device, "img")?;
    let pass = evaluating(&tape, &weights);
    let parts = network.logits_in_parts(&pass, &image).map_err(said)?;
    let hrda = parts.hrda.as_ref().ok_or("the network has one scale")?;
    let boxes: Vec<f64> = hrda.boxes.iter().flatten().map(|&edge| edge as f64).collect();
    report.compare("boxes", &[hrda.boxes.len(), 4], &boxes);
    let maps = [
        ("lr_img", &hrda.small),
        ("lr_seg", &hrda.low),
        ("att", &hrda.attention),
        ("hr_crop_seg", &hrda.cropped),
        ("hr_seg", &hrda.high),
        ("fused", &parts.fused),
    ];
    for (key, map) in maps {
        compare_map(report, key, device, map)?;
    }
    let logits = ops::resize(&tape, &parts.fused, (height, width), None).map_err(said)?;
    compare_map(report, "logits", device, &logits)?;
    let (size, confidence) = ((height, width), ops::Confidence::default());
    let pseudo = ops::pseudo_labels(device, &parts.fused, size, None, confidence, true);
    let pseudo = pseudo.map_err(said)?;
    let shape = [batch, height, width];
    let labels: Vec<u8> = device.read(&pseudo.label).map_err(said)?;
    report.compare("argmax", &shape, &labels);
    let predicted = ops::predict(device, &parts.fused, size).map_err(said)?;
    report.require("predict answers as pseudo_labels", {
        device.read::<u8>(&predicted).map_err(said)? == labels
    });
    let probability = pseudo.probability.ok_or("the probability was asked for")?;
    report.compare("max_prob", &shape, &device.read_f32(&probability).map_err(said)?);
    Ok(())
}

pub fn hrda_slide(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let (network, weights) = segmentor(case, device, false)?;
    let [batch, height, width] = image_size(case)?;
    let window: (usize, usize) = case.read(&["test_crop"])?;
    let step: (usize, usize) = case.read(&["stride"])?;
    let size: (usize, usize) = case.read(&["rescale_to"])?;
    let run = || {
        let tape = Tape::inference(device);
        let image = formula_image(case, device, "img")?;
        let windows = Windows::new(device, (height, width), window, step).map_err(said)?;
        let crops = windows.crops(device, &image).map_err(said)?;
        let logits = network.logits(&evaluating(&tape, &weights), &crops).map_err(said)?;
        let [_, h, w, _] = logits.bhwc("slide").map_err(said)?;
        let (wide, high) = (w * network.stride(), h * network.stride());
        if (high, wide) != windows.size() {
            return Err(format!("logits of {h}x{w} for windows of {:?}", windows.size()));
        }
        let logits = windows.average(device, &logits, 1).map_err(said)?;
        let rescaled = ops::resize(&tape, &logits, size, None).map_err(said)?;
        let predicted = ops::predict(device, &logits, size).map_err(said)?;
        Ok((logits, rescaled, predicted))
    };
    let (logits, rescaled, predicted) = run()?;
    compare_map(report, "logits", device, &logits)?;
    let (shape, values) = to_reference(device, &rescaled)?;
    report.compare("probs", &shape, &softmax(&shape, &values));
    let labels: Vec<u8> = device.read(&predicted).map_err(said)?;
    report.compare("pred", &[batch, size.0, size.1], &labels);
    Ok(())
}
