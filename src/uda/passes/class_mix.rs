//! ClassMix (Olsson et al. 2021): half of the classes in the source, pasted over the target.

use crate::Result;
use crate::ops::mix::{self, Labeled, Layer, Mix};
use crate::uda::batch::DeviceBatch;
use crate::uda::inputs::PassKind;
use crate::uda::state::TrainingState;

use super::mixed::{candidates, mixed};
use super::student::StudentPass;

pub(in crate::uda) fn class_mix(
    state: &TrainingState,
    batch: &DeviceBatch,
    target: &Labeled,
) -> Result<StudentPass> {
    let TrainingState { device, inputs, .. } = state;
    let label = &batch.source.label;
    let table = mix::choose_half(device, label, &inputs.class_mix, candidates(state))?;
    let pasted = Layer { of: &batch.source, table: &table, confident: None };
    let mix = Mix { under: target, layers: [Some(pasted), None], rare: None };
    Ok(StudentPass {
        kind: PassKind::Mixed,
        prefix: "mix.",
        input: mixed(state, mix, PassKind::Mixed)?,
        loss_weights: Some([1.0; 2]),
        contrasted: false,
    })
}
