//! Masked image consistency (MIC, Hoyer et al. 2023): training on images with hidden blocks,
//! supervised by the (pseudo-)labels of the complete images.

use crate::Result;
use crate::config::Masked;
use crate::ops::augment::{augment, block_mask};
use crate::ops::mix::Labeled;
use crate::uda::batch::DeviceBatch;
use crate::uda::inputs::{PassKind, mask_cells};
use crate::uda::mix::half_of_each;
use crate::uda::state::TrainingState;

use super::student::StudentPass;

pub(in crate::uda) fn masked(
    state: &TrainingState,
    batch: &DeviceBatch,
    target: Option<&Labeled>,
) -> Result<StudentPass> {
    let TrainingState { device, inputs, normalizer, config, .. } = state;
    let whole = match (config.mask.images, target) {
        (Masked::Target, Some(target)) => target,
        (Masked::Both, Some(target)) => &half_of_each(device, &batch.source, target, state.slots)?,
        _ => &batch.source,
    };
    let image = match config.mask.augment {
        true => augment(device, normalizer, &whole.image, &inputs.augmentation(PassKind::Masked)?)?,
        false => whole.image.clone(),
    };
    let cells = [mask_cells(config.data.crop, config.mask.block); 2];
    let image = block_mask(device, &image, &inputs.mask_grid, cells, config.mask.ratio)?;
    Ok(StudentPass {
        kind: PassKind::Masked,
        prefix: "masked.",
        input: Labeled { image, ..whole.clone() },
        // As in the reference, `mask_lambda` leaves the detail loss alone.
        loss_weights: Some([config.mask.weight, 1.0]),
        contrasted: false,
    })
}
