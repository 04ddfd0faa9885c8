//! Pseudo-labels of the teacher for the target images.

use crate::Result;
use crate::config::MaskLabels;
use crate::nn::{BatchNormMode, Pass};
use crate::ops::{self, Confidence, PseudoLabels};
use crate::params::Weights;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::uda::batch::DeviceBatch;
use crate::uda::report::Terms;
use crate::uda::state::TrainingState;
use crate::uda::trace::Trace;

/// Labels the target images with the teacher.
pub(in crate::uda) fn pseudo_labels(
    state: &TrainingState,
    teacher: &Weights,
    batch: &DeviceBatch,
    terms: &mut Terms,
    trace: &mut Trace,
) -> Result<PseudoLabels> {
    trace.tensor("target.img", &batch.target)?;
    let threshold = state.config.pseudo_label.threshold;
    let (logits, mut pseudo) =
        label(state, teacher, BatchNormMode::Train, threshold, batch, trace.is_on())?;
    trace.tensor("teacher/logits", &logits)?;
    terms.add("pseudo_label.weight", &pseudo.share, 1.0);
    trace.tensor("teacher/label", &pseudo.label)?;
    if let Some(probability) = pseudo.probability.take() {
        trace.tensor("teacher/max_prob", &probability)?;
    }
    trace.tensor("teacher/weight", &pseudo.weight)?;
    Ok(pseudo)
}

/// Returns the labels for masked target images, if they are not the teacher's own: MIC's ablations
/// take the student's predictions, or let every pixel count fully.
pub(in crate::uda) fn labels_for_masks(
    state: &TrainingState,
    batch: &DeviceBatch,
) -> Result<Option<PseudoLabels>> {
    let mask = &state.config.mask;
    let weights = match (mask.labels, &state.teacher) {
        (_, None) => return Ok(None),
        (MaskLabels::Teacher, _) if mask.confidence_weight => return Ok(None),
        (MaskLabels::Teacher, Some(teacher)) => teacher,
        (MaskLabels::Student, Some(_)) => &state.student,
    };
    // Every probability reaches a threshold of 0.
    let threshold = if mask.confidence_weight { state.config.pseudo_label.threshold } else { 0.0 };
    // The reference labels with a copy of the network, so running statistics stay as they are.
    let (_, pseudo) = label(state, weights, BatchNormMode::Recompute, threshold, batch, false)?;
    Ok(Some(pseudo))
}

/// Returns the logits of whole images. A teacher in the released code stays in train mode: batch
/// statistics, but no dropout or drop-path.
pub(super) fn logits(
    state: &TrainingState,
    weights: &Weights,
    batch_norm: BatchNormMode,
    image: &Tensor,
) -> Result<Tensor> {
    let TrainingState { device, network, .. } = state;
    let tape = Tape::inference(device);
    let pass = Pass { tape: &tape, weights, batch_norm, dropout_rng: None };
    device.scope("teacher", || network.logits(&pass, image))
}

/// Returns the logits and labels of the target images.
fn label(
    state: &TrainingState,
    weights: &Weights,
    batch_norm: BatchNormMode,
    threshold: f32,
    batch: &DeviceBatch,
    probability: bool,
) -> Result<(Tensor, PseudoLabels)> {
    let TrainingState { device, config, .. } = state;
    let logits = logits(state, weights, batch_norm, &batch.target)?;
    let confidence =
        Confidence { counted: threshold as f64, confident: config.pseudo_label.confident as f64 };
    let [_, height, width, _] = batch.target.bhwc("pseudo_labels")?;
    let (size, valid) = ((height, width), Some(&batch.valid));
    let pseudo = ops::pseudo_labels(device, &logits, size, valid, confidence, probability)?;
    Ok((logits, pseudo))
}
