//! The class-balanced crop (SePiCo, Xie et al. 2023): the teacher labels whole target images, and of
//! several boxes each is cropped at the one whose classes are most balanced.

use crate::Result;
use crate::nn::BatchNormMode;
use crate::ops;
use crate::uda::batch::DeviceBatch;
use crate::uda::state::TrainingState;
use crate::uda::trace::Trace;

use super::teacher::logits;

/// Returns the batch with its target cropped, or as it is if the configuration does not crop so.
pub(in crate::uda) fn class_balanced_crop(
    state: &TrainingState,
    batch: DeviceBatch,
    trace: &mut Trace,
) -> Result<DeviceBatch> {
    let TrainingState { device, teacher, inputs, config, .. } = state;
    let (true, Some(teacher)) = (config.class_balanced_crop.enabled, teacher) else {
        return Ok(batch);
    };
    let [_, height, width, _] = batch.target.bhwc("class_balanced_crop")?;
    let logits = logits(state, teacher, BatchNormMode::Train, &batch.target)?;
    let label = ops::predict(device, &logits, (height, width))?;
    trace.tensor("teacher/full_label", &label)?;
    let max_share = config.data.max_class_share.into();
    device.scope("mix", || {
        let place = ops::most_balanced(device, &label, &inputs.crop_boxes, max_share)?;
        trace.tensor("crop/box", &place)?;
        let crop = |x| ops::crop(device, x, &place, (config.data.crop, config.data.crop), 1);
        Ok(DeviceBatch { target: crop(&batch.target)?, valid: crop(&batch.valid)?, ..batch })
    })
}
