//! Pseudo-labels of the teacher for the target images.

use crate::Result;
use crate::nn::{BatchNormMode, Pass};
use crate::ops::{self, Confidence, PseudoLabels};
use crate::params::Weights;
use crate::tape::Tape;
use crate::uda::batch::DeviceBatch;
use crate::uda::report::Terms;
use crate::uda::state::TrainingState;
use crate::uda::trace::Trace;

pub(in crate::uda) fn pseudo_labels(
    state: &TrainingState,
    teacher: &Weights,
    batch: &DeviceBatch,
    terms: &mut Terms,
    trace: &mut Trace,
) -> Result<PseudoLabels> {
    let TrainingState { device, network, config, .. } = state;
    let tape = Tape::inference(device);
    // The teacher in the released code stays in train mode: batch statistics, but no dropout or
    // drop-path.
    let pass =
        Pass { tape: &tape, weights: teacher, batch_norm: BatchNormMode::Train, dropout_rng: None };
    let logits = device.scope("teacher", || network.logits(&pass, &batch.target))?;
    trace.tensor("teacher/logits", &logits)?;
    let settings = &config.pseudo_label;
    let confidence =
        Confidence { counted: settings.threshold as f64, confident: settings.confident as f64 };
    let [_, height, width, _] = batch.target.bhwc("pseudo_labels")?;
    let (size, valid) = ((height, width), Some(&batch.valid));
    let pseudo = ops::pseudo_labels(device, &logits, size, valid, confidence, trace.is_on())?;
    terms.add("pseudo_label.weight", &pseudo.share, 1.0);
    trace.tensor("teacher/label", &pseudo.label)?;
    if let Some(probability) = &pseudo.probability {
        trace.tensor("teacher/max_prob", probability)?;
    }
    trace.tensor("teacher/weight", &pseudo.weight)?;
    Ok(pseudo)
}
