//! One iteration of the method, from top to bottom.
//!
//! The work is launched without waiting for the device or reading anything from the host, and its
//! inputs and results are at fixed addresses. This is what allows `submit` to capture it as a CUDA
//! graph.

use crate::ops::PseudoLabels;
use crate::ops::mix::Labeled;
use crate::{Error, Result};

use super::forward_backward::forward_backward;
use super::passes::{
    StudentPass, class_balanced_crop, class_mix, labels_for_masks, masked, pseudo_labels, quad_mix,
    take_in_source, unmixed_target,
};
use super::report::{TermName, Terms};
use super::state::{Mixing, Phase, TrainingState};
use super::trace::Trace;

impl TrainingState {
    /// Trains on the loaded batch. Returns the names of the reported terms.
    pub(super) fn iterate(&mut self, phase: Phase, trace: &mut Trace) -> Result<Vec<TermName>> {
        let device = self.device.clone();
        let mut terms = Terms::default();

        self.zero_gradients()?;
        self.stage_statistics()?;

        let batch = class_balanced_crop(self, self.batch.current(), trace)?;
        let mut passes = vec![StudentPass::source(self, &batch)?];
        let pseudo = match &self.teacher {
            Some(teacher) => Some(pseudo_labels(self, teacher, &batch, &mut terms, trace)?),
            None => None,
        };
        let labeled = |pseudo: &PseudoLabels| Labeled {
            image: batch.target.clone(),
            label: pseudo.label.clone(),
            weight: Some(pseudo.weight.clone()),
        };
        let target = pseudo.as_ref().map(labeled);
        take_in_source(self, &batch, trace)?;
        if let (true, Some(target)) = (phase.contrast, &target) {
            passes[0].contrasted = true;
            passes.push(unmixed_target(self, target)?);
        }
        if let Some(target) = &target {
            device.scope("mix", || {
                match phase.mixing {
                    Mixing::ClassMix => passes.push(class_mix(self, &batch, target)?),
                    Mixing::QuadMix => passes.extend(quad_mix(self, &batch, target, trace)?),
                }
                Ok::<_, Error>(())
            })?;
        }
        if self.config.mask.enabled {
            let own = labels_for_masks(self, &batch)?.as_ref().map(labeled);
            let target = own.as_ref().or(target.as_ref());
            passes.push(device.scope("mix", || masked(self, &batch, target))?);
        }
        forward_backward(self, passes, &mut terms, trace)?;

        self.average_and_check(&terms)?;
        self.update()?;
        self.commit_statistics()?;
        if let Some(pseudo) = &pseudo {
            self.templates.replace(&device, &batch, pseudo, &self.failed)?;
        }
        Ok(terms.into_names())
    }
}
