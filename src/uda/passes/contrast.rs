//! The parts of an iteration that contrast features with class statistics (SePiCo, Xie et al. 2023).

use crate::Result;
use crate::nn::{BatchNormMode, Pass};
use crate::ops;
use crate::ops::augment::augment;
use crate::ops::mix::Labeled;
use crate::tape::Tape;
use crate::uda::batch::DeviceBatch;
use crate::uda::inputs::PassKind;
use crate::uda::state::TrainingState;
use crate::uda::trace::Trace;

use super::student::StudentPass;

/// Lets the class statistics, if there are any, take in the teacher's features of the source images as
/// they are.
pub(in crate::uda) fn take_in_source(
    state: &mut TrainingState,
    batch: &DeviceBatch,
    trace: &mut Trace,
) -> Result<()> {
    let TrainingState { device, network, teacher, contrast, .. } = state;
    let (Some(teacher), Some(contrast)) = (teacher, contrast) else { return Ok(()) };
    let tape = Tape::inference(device);
    let batch_norm = BatchNormMode::Train;
    let pass = Pass { tape: &tape, weights: teacher, batch_norm, dropout_rng: None };
    let features = device.scope("teacher", || {
        let image = network.context(&pass, &batch.source.image)?;
        network.projection(&pass, &network.backbone().forward(&pass, &image)?)
    })?;
    trace.tensor("teacher/q", &features)?;
    device.scope("contrast", || {
        let cells = contrast.cells(device, &batch.source.label, &features)?;
        contrast.take_in(device, &features, &cells)
    })
}

/// Returns the student's pass over target images, whose features are contrasted by their
/// pseudo-labels and which has no other loss.
pub(in crate::uda) fn unmixed_target(
    state: &TrainingState,
    target: &Labeled,
) -> Result<StudentPass> {
    let TrainingState { device, inputs, normalizer, config, .. } = state;
    let image = match config.augment.unmixed {
        true => {
            augment(device, normalizer, &target.image, &inputs.augmentation(PassKind::Target)?)?
        }
        false => target.image.clone(),
    };
    let label = match &target.weight {
        Some(weight) => ops::ignore_unweighted(device, &target.label, weight)?,
        None => target.label.clone(),
    };
    Ok(StudentPass {
        kind: PassKind::Target,
        prefix: "tgt.",
        input: Labeled { image, label, weight: None },
        loss_weights: None,
        contrasted: true,
    })
}
