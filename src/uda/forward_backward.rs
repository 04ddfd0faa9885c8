//! Forward and backward through the passes of the student. Gradients of all passes accumulate.

use crate::nn::{BatchNormMode, Features, Pass, Supervision};
use crate::ops;
use crate::params::Weights;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::inputs::PassKind;
use super::passes::StudentPass;
use super::report::Terms;
use super::state::TrainingState;
use super::trace::Trace;

/// Runs the passes one after the other, or as one batch if `network.batch_student_passes` is set and the
/// backbone supports it.
pub(super) fn forward_backward(
    state: &TrainingState,
    mut passes: Vec<StudentPass>,
    terms: &mut Terms,
    trace: &mut Trace,
) -> Result<()> {
    let joined = state.config.network.batch_student_passes && state.network.backbone().joins();
    let at_once = if joined { passes.len() } else { 1 };
    while !passes.is_empty() {
        // Each pass is dropped after its backward, which frees its images before the next one runs.
        let now: Vec<StudentPass> = passes.drain(..at_once).collect();
        forward_backward_together(state, &now, terms, trace)?;
    }
    Ok(())
}

/// Runs one forward and one backward of the backbone for all of `passes`. In between, each pass
/// goes through the decoder separately, so that the decoder activations of only one pass exist at a
/// time.
fn forward_backward_together(
    state: &TrainingState,
    passes: &[StudentPass],
    terms: &mut Terms,
    trace: &mut Trace,
) -> Result<()> {
    let TrainingState { device, network, .. } = state;
    let scope = if let [one] = passes { one.kind.name() } else { "student" };
    device.scope(scope, || {
        let tape = Tape::recording(device);
        let supervisions: Vec<Supervision> = passes.iter().map(|p| p.supervision(state)).collect();
        let forwards = passes.iter().map(|pass| pass.forward(state, &tape));
        let features = network.features(&forwards.zip(&supervisions).collect::<Vec<_>>())?;
        let mut seeds = Vec::new();
        for ((pass, features), supervision) in passes.iter().zip(&features).zip(&supervisions) {
            device.scope(pass.kind.name(), || {
                let gradients =
                    feature_gradients(state, pass, features, supervision, terms, trace)?;
                let maps = features.maps().zip(gradients);
                seeds.extend(maps.filter_map(|(map, gradient)| Some((map, gradient?))));
                Ok::<_, Error>(())
            })?;
        }
        tape.backward(seeds).map(|_| ())
    })
}

/// Runs the decoder and the losses of a pass and their backward. Returns the gradients of the
/// backbone features.
fn feature_gradients(
    state: &TrainingState,
    pass: &StudentPass,
    features: &Features,
    supervision: &Supervision,
    terms: &mut Terms,
    trace: &mut Trace,
) -> Result<Vec<Option<Tensor>>> {
    let TrainingState { device, network, config, .. } = state;
    let StudentPass { kind, prefix, input, loss_weights, contrasted } = pass;
    trace.labeled(if *kind == PassKind::Source { "src." } else { prefix }, input)?;
    let tape = Tape::recording(device);
    let features = features.leaves(&tape);
    let forward = pass.forward(state, &tape);
    let losses = match loss_weights {
        Some(_) => network.losses(&forward, &features, supervision)?.losses,
        None => Vec::new(),
    };
    let mut seeds = Vec::new();
    let parts = loss_weights.iter().flatten().zip(["decode.", "decode.hr."]);
    for ((loss, share), (weight, part)) in losses.iter().zip(parts) {
        // Like the reference, report a loss with HRDA's loss weight and with that of masking, but
        // without that of QuadMix.
        let reported = if *kind == PassKind::Masked { share * weight } else { *share };
        terms.add(format!("{prefix}{part}loss_seg"), &loss.value, reported);
        terms.add(format!("{prefix}{part}acc_seg"), &loss.accuracy, 1.0);
        seeds.push((&loss.value, ops::full(device, &[1], share * weight)?));
    }
    let distance = match &state.imagenet {
        Some(imagenet) if *kind == PassKind::Source => {
            Some(feature_distance(state, &tape, imagenet, supervision, &features.context[3])?)
        }
        _ => None,
    };
    if let Some(distance) = &distance {
        let weight = config.feature_distance.weight;
        terms.add("src.loss_imnet_feat_dist", distance, weight);
        // It is a mean over the positions of all processes, whose gradients will be averaged.
        let processes = device.place().size as f32;
        seeds.push((distance, ops::full(device, &[1], weight * processes)?));
    }
    let contrast = match &state.contrast {
        Some(contrast) if *contrasted => {
            let projected = network.projection(&forward, &features.context)?;
            let cells = contrast.cells(device, supervision.label, &projected)?;
            Some(device.scope("contrast", || contrast.loss(&tape, &projected, &cells))?)
        }
        _ => None,
    };
    if let Some(contrast) = &contrast {
        let domain = if *kind == PassKind::Source { "src." } else { prefix };
        terms.add(format!("{domain}aux.loss_cl"), contrast, 1.0);
        seeds.push((contrast, ops::full(device, &[1], 1.0)?));
    }
    drop(forward);
    let mut gradients = tape.backward(seeds)?;
    Ok(features.maps().map(|map| gradients.of(map)).collect())
}

/// Returns the distance between the student's features of the source images and those of the frozen
/// ImageNet model (DAFormer, Hoyer et al. 2022).
fn feature_distance(
    state: &TrainingState,
    tape: &Tape,
    imagenet: &Weights,
    source: &Supervision,
    student_features: &Tensor,
) -> Result<Tensor> {
    let TrainingState { device, network, thing_classes, config, .. } = state;
    let inference = Tape::inference(device);
    let (batch_norm, dropout_rng) = (BatchNormMode::Eval, None);
    let frozen = Pass { tape: &inference, weights: imagenet, batch_norm, dropout_rng };
    let [.., frozen_features] = device.scope("imagenet", || {
        let context = network.context(&frozen, source.image)?;
        network.backbone().forward(&frozen, &context)
    })?;
    let min_share = config.feature_distance.min_share as f64;
    ops::feature_distance(
        tape,
        student_features,
        &frozen_features,
        source.label,
        thing_classes,
        min_share,
    )
    .map(|distance| distance.value)
}
