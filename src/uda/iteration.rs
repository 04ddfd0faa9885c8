//! One iteration of the method, from top to bottom.
//!
//! The work is launched without waiting for the device or reading anything from the host, and its
//! inputs and results are at fixed addresses. This is what allows `submit` to capture it as a CUDA
//! graph.

use crate::ops::mix::Labeled;
use crate::{Error, Result};

use super::forward_backward::forward_backward;
use super::passes::{StudentPass, class_mix, masked, pseudo_labels, quad_mix};
use super::report::{TermName, Terms};
use super::state::{Mixing, TrainingState};
use super::trace::Trace;

impl TrainingState {
    /// Trains on the loaded batch. Returns the names of the reported terms.
    pub(super) fn iterate(&mut self, mixing: Mixing, trace: &mut Trace) -> Result<Vec<TermName>> {
        let device = self.device.clone();
        let batch = self.batch.current();
        let mut terms = Terms::default();

        self.zero_gradients()?;
        self.stage_statistics()?;

        let mut passes = vec![StudentPass::source(&batch)];
        let pseudo = match &self.teacher {
            Some(teacher) => Some(pseudo_labels(self, teacher, &batch, &mut terms, trace)?),
            None => None,
        };
        if let Some(pseudo) = &pseudo {
            let target = Labeled {
                image: batch.target.clone(),
                label: pseudo.label.clone(),
                weight: Some(pseudo.weight.clone()),
            };
            device.scope("mix", || {
                match mixing {
                    Mixing::ClassMix => passes.push(class_mix(self, &batch, &target)?),
                    Mixing::QuadMix => passes.extend(quad_mix(self, &batch, &target, trace)?),
                }
                if self.config.mask.enabled {
                    passes.push(masked(self, &batch, &target)?);
                }
                Ok::<_, Error>(())
            })?;
        }
        forward_backward(self, passes, &mut terms, trace)?;

        self.check_finite(&terms)?;
        self.update()?;
        self.commit_statistics()?;
        if let Some(pseudo) = &pseudo {
            self.templates.replace(&device, &batch, pseudo, &self.failed)?;
        }
        Ok(terms.into_names())
    }
}
