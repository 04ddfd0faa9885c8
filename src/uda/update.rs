//! Start and end of an iteration: gradients are zeroed, and the state is updated unless the step
//! failed.
//!
//! Only the device knows whether the step failed. Every kernel that changes the state reads the
//! flag `failed` and leaves the state unchanged if it is set.

use crate::Result;
use crate::ops;
use crate::ops::commit;

use super::report::Terms;
use super::state::TrainingState;

impl TrainingState {
    pub(super) fn zero_gradients(&mut self) -> Result<()> {
        match &mut self.student.grads {
            Some(grads) => self.device.zero(grads),
            None => Ok(()),
        }
    }

    /// Copies the running statistics of batch norms and the class statistics, so that the iteration
    /// updates the copies until [`commit_statistics`](Self::commit_statistics).
    pub(super) fn stage_statistics(&mut self) -> Result<()> {
        for weights in std::iter::once(&mut self.student).chain(&mut self.teacher) {
            self.device.copy(&weights.buffers, &mut weights.pending)?;
        }
        self.contrast.iter_mut().try_for_each(|contrast| contrast.stage(&self.device))
    }

    /// Stores the terms for the report, and averages them and the gradients over the processes. Sets
    /// `failed` if one is not finite: then it is not in any process.
    pub(super) fn average_and_check(&mut self, terms: &Terms) -> Result<()> {
        let device = &self.device;
        let logged = terms.gather(device, &self.averaged.logged)?;
        self.averaged.exchange(device, &self.inputs.stop)?;
        ops::flag_not_finite(device, &logged, &mut self.failed)?;
        match &self.student.grads {
            Some(grads) => ops::flag_not_finite(device, grads, &mut self.failed),
            None => Ok(()),
        }
    }

    /// Runs the optimizer step together with the EMA update of the teacher.
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
        let (device, failed) = (&self.device, &self.failed);
        self.contrast.iter_mut().try_for_each(|contrast| contrast.commit(device, failed))
    }
}
