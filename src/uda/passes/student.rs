//! A training pass of the student.

use crate::nn::{BatchNormMode, DropoutRng, Pass, Supervision};
use crate::ops::mix::Labeled;
use crate::tape::Tape;
use crate::uda::batch::DeviceBatch;
use crate::uda::inputs::PassKind;
use crate::uda::state::TrainingState;

/// One forward and backward pass of the student: its images, and the weight of its losses.
pub(in crate::uda) struct StudentPass {
    pub kind: PassKind,
    /// Prefix of the names of its reported terms, as in the reference.
    pub prefix: &'static str,
    pub input: Labeled,
    /// Weights of the fused (or only) loss and of the loss of HRDA's detail crop.
    pub loss_weights: [f32; 2],
}

impl StudentPass {
    /// Creates the pass over source images with their own labels.
    pub fn source(batch: &DeviceBatch) -> StudentPass {
        StudentPass {
            kind: PassKind::Source,
            prefix: "",
            input: batch.source.clone(),
            loss_weights: [1.0; 2],
        }
    }

    /// Returns the settings with which the network runs in this pass.
    pub fn forward<'a>(&self, state: &'a TrainingState, tape: &'a Tape) -> Pass<'a> {
        let dropout_rng =
            DropoutRng { key: state.inputs.drop_key.clone(), pass: self.kind as usize };
        Pass {
            tape,
            weights: &state.student,
            batch_norm: BatchNormMode::Train,
            dropout_rng: Some(dropout_rng),
        }
    }

    pub fn supervision<'a>(&'a self, state: &'a TrainingState) -> Supervision<'a> {
        Supervision {
            image: &self.input.image,
            label: &self.input.label,
            weight: self.input.weight.as_ref(),
            detail_box: &state.inputs.detail_boxes[self.kind as usize],
        }
    }
}
