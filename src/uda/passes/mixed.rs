//! Shared parts of ClassMix and QuadMix: the candidate classes, and the augmentation of mixed
//! images.

use crate::Result;
use crate::ops::augment::blur;
use crate::ops::mix::{self, Candidates, Labeled, Mix};
use crate::uda::inputs::PassKind;
use crate::uda::state::TrainingState;

pub(super) fn candidates(state: &TrainingState) -> Candidates {
    match state.config.mix.released_unlabeled {
        true => Candidates::All,
        false => Candidates::Labeled,
    }
}

/// Mixes images and applies the jitter and blur that were drawn for the pass.
pub(super) fn mixed(state: &TrainingState, mix: Mix, kind: PassKind) -> Result<Labeled> {
    let TrainingState { device, normalizer, inputs, .. } = state;
    let augmentation = inputs.augmentation(kind)?;
    let mut mixed = mix::mix(device, normalizer, mix, Some(&augmentation))?;
    blur(device, &mut mixed.image, &augmentation)?;
    Ok(mixed)
}
