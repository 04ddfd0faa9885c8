//! Training passes: losses, gradients of every parameter, batch-norm statistics.

use udass_raw::device::Device;
use udass_raw::nn::{BatchNormMode, Output, Pass, Segmentor, Supervision};
use udass_raw::ops;
use udass_raw::params::Weights;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

use super::layout::{compare_map, softmax, to_reference};
use super::networks::{evaluating, formula_image, image_size, segmentor};
use super::said;
use crate::support::cases::Outcome;
use crate::support::formula;
use crate::support::report::Report;

/// Runs one HRDA training pass with a fixed detail box.
pub fn train(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let (network, mut weights) = segmentor(case, device, true)?;
    let detail: [i32; 4] = case.read(&["crop_box_y1y2x1x2"])?;
    let weighted: bool = case.read(&["seg_weight"])?;
    learn(report, device, &network, &mut weights, detail, weighted)?;
    Ok(())
}

/// Runs a single-scale network: evaluation, then one training pass.
pub fn plain(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let (network, mut weights) = segmentor(case, device, true)?;
    let [_, height, width] = image_size(case)?;
    let tape = Tape::inference(device);
    let image = formula_image(case, device, "img")?;
    let small = network.logits(&evaluating(&tape, &weights), &image).map_err(said)?;
    compare_map(report, "logits_lowres", device, &small)?;
    let logits = ops::resize(&tape, &small, (height, width), None).map_err(said)?;
    compare_map(report, "logits", device, &logits)?;
    let (shape, values) = to_reference(device, &logits)?;
    report.compare("probs", &shape, &softmax(&shape, &values));
    learn(report, device, &network, &mut weights, [0; 4], false)?;
    Ok(())
}

fn learn(
    report: &mut Report,
    device: &Device,
    network: &Segmentor,
    weights: &mut Weights,
    detail: [i32; 4],
    weighted: bool,
) -> Outcome {
    let case = report.case();
    let [b, h, w] = image_size(case)?;
    let image = formula_image(case, device, "img")?;
    let label = report.input_bytes("label")?;
    let label = device.upload(&[b, h, w], &label).map_err(said)?;
    let pixel_weight = formula::unit(&case.input("seg_weight"), b * h * w);
    let pixel_weight = device.upload_real(&[b, h, w], &pixel_weight).map_err(said)?;
    let detail = device.upload(&[4], &detail).map_err(said)?;
    let tape = Tape::recording(device);
    let pass = Pass { tape: &tape, weights, batch_norm: BatchNormMode::Train, dropout_rng: None };
    let supervision = Supervision {
        image: &image,
        label: &label,
        weight: weighted.then_some(&pixel_weight),
        detail_box: &detail,
    };
    let features = network.features(&[(pass.clone(), &supervision)]).map_err(said)?;
    let Output { losses, logits } =
        network.losses(&pass, &features[0], &supervision).map_err(said)?;
    drop(features);
    for (name, map) in &logits {
        let key = format!("logits/{name}");
        // Cases of a single-scale network store only the evaluation's.
        if case.has(&key) {
            compare_map(report, &key, device, map)?;
        }
    }
    let one = |x: &Tensor| Ok::<_, String>(f64::from(device.read_f32(x).map_err(said)?[0]));
    let mut total = 0.0;
    let mut seeds = Vec::new();
    for ((loss, share), part) in losses.iter().zip(["decode.", "decode.hr."]) {
        let value = one(&loss.value)? * f64::from(*share);
        report.scalar(&format!("{part}loss_seg"), value);
        report.scalar(&format!("{part}acc_seg"), one(&loss.accuracy)?);
        report.require(&format!("{part}: all labels are known"), one(&loss.unknown)? == 0.0);
        total += value;
        seeds.push((&loss.value, device.upload_real(&[1], &[*share]).map_err(said)?));
    }
    report.scalar("loss", total);
    drop(pass);
    tape.backward(seeds).map_err(said)?;
    drop(losses);
    let norm = compare_gradients(report, device, weights)?;
    if case.scalars.iter().any(|(key, _)| key == "grad_norm_total") {
        report.scalar("grad_norm_total", norm);
    }
    // A successful step commits the pending buffers.
    let Weights { pending, buffers, .. } = weights;
    device.copy(pending, buffers).map_err(said)?;
    compare_buffers(report, device, weights, "bn/")
}

/// Compares every parameter's gradient with the stored one, or with zero where the case lists it as
/// having none. Returns the norm of all gradients.
pub fn compare_gradients(report: &mut Report, device: &Device, weights: &Weights) -> Outcome<f64> {
    let case = report.case();
    let grads = weights.grads.as_ref().ok_or("the weights have no gradients")?;
    let without = case.extra.get("params_without_grad").and_then(|v| v.as_array());
    let mut square = 0.0;
    for (i, param) in weights.spec().params().iter().enumerate() {
        let values = weights.export(device, grads, i).map_err(said)?;
        square += values.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>();
        let key = format!("grad/{}", param.name);
        if without.is_some_and(|names| names.iter().any(|n| *n == param.name)) {
            report.require(&format!("{key} is zero"), values.iter().all(|&g| g == 0.0));
        } else {
            report.compare(&key, &param.shape, &values);
        }
    }
    Ok(square.sqrt())
}

/// Compares every committed buffer with the stored tensor, or for a count with the stored scalar.
/// Counts are skipped if the case stores none.
pub fn compare_buffers(
    report: &mut Report,
    device: &Device,
    weights: &Weights,
    prefix: &str,
) -> Outcome {
    for (i, buffer) in weights.spec().buffers().iter().enumerate() {
        let values = weights.export_buffer(device, i).map_err(said)?;
        let key = format!("{prefix}{}", buffer.name);
        if buffer.shape.is_empty() {
            if report.case().scalars.iter().any(|(k, _)| *k == key) {
                report.scalar(&key, values[0].into());
            }
        } else if report.case().has(&key) {
            report.compare(&key, &buffer.shape, &values);
        }
    }
    Ok(())
}
