//! A training pass of the student.

use crate::Result;
use crate::nn::{BatchNormMode, DropoutRng, Pass, Supervision};
use crate::ops::augment::augment;
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
    /// Weights of the fused (or only) loss and of the loss of HRDA's detail crop; None if the pass
    /// does not segment.
    pub loss_weights: Option<[f32; 2]>,
    /// Whether features are contrasted with class statistics.
    pub contrasted: bool,
}

impl StudentPass {
    /// Creates the pass over source images with their own labels.
    pub fn source(state: &TrainingState, batch: &DeviceBatch) -> Result<StudentPass> {
        let TrainingState { device, inputs, normalizer, config, .. } = state;
        let mut input = batch.source.clone();
        if config.augment.unmixed {
            let augmentation = inputs.augmentation(PassKind::Source)?;
            input.image = augment(device, normalizer, &input.image, &augmentation)?;
        }
        Ok(StudentPass {
            kind: PassKind::Source,
            prefix: "",
            input,
            loss_weights: Some([1.0; 2]),
            contrasted: false,
        })
    }

    /// Returns the settings with which the network runs in this pass.
    pub fn forward<'a>(&self, state: &'a TrainingState, tape: &'a Tape) -> Pass<'a> {
        let (key, slots) = (state.inputs.drop_key.clone(), state.slots);
        let dropout_rng = DropoutRng { key, pass: self.kind as usize, slots };
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
