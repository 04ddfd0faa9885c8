//! How an iteration begins and ends: gradients zeroed, and the state updated unless the step failed.
//!
//! Whether it failed is known on the device alone. Every kernel that changes the state reads the
//! flag `failed` and leaves the state as it is where the flag is set.

use crate::Result;
use crate::ops;
use crate::ops::commit;

use super::report::Terms;
use super::state::Learner;

impl Learner {
    pub(super) fn zero_gradients(&mut self) -> Result<()> {
        match &mut self.student.grads {
            Some(grads) => self.device.zero(grads),
            None => Ok(()),
        }
    }

    /// Batch norms move copies of their running statistics, until
    /// [`commit_statistics`](Self::commit_statistics).
    pub(super) fn stage_statistics(&mut self) -> Result<()> {
        for weights in std::iter::once(&mut self.student).chain(&mut self.teacher) {
            self.device.copy(&weights.buffers, &mut weights.pending)?;
        }
        Ok(())
    }

    /// Sets `failed` where a term or a gradient is not finite, and leaves the terms in `logged`.
    pub(super) fn check_finite(&mut self, terms: &Terms) -> Result<()> {
        let device = &self.device;
        let logged = terms.gather(device, &self.logged)?;
        ops::flag_not_finite(device, &logged, &mut self.failed)?;
        match &self.student.grads {
            Some(grads) => ops::flag_not_finite(device, grads, &mut self.failed),
            None => Ok(()),
        }
    }

    /// The optimizer's step, and the teacher's moving average with it.
    pub(super) fn update(&mut self) -> Result<()> {
        let (student, teacher) = (&mut self.student, self.teacher.as_mut());
        let numbers = &self.inputs.update;
        self.device.scope("optimizer", || {
            self.optimizer.update(&self.device, student, teacher, numbers, &self.failed)
        })
    }

    pub(super) fn commit_statistics(&mut self) -> Result<()> {
        for weights in std::iter::once(&mut self.student).chain(&mut self.teacher) {
            commit(&self.device, &weights.pending, &mut weights.buffers, &self.failed)?;
        }
        Ok(())
    }
}
