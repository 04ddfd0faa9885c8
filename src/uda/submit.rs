//! Submits iterations with their batch and random draws, as CUDA graphs if the device supports
//! them, without waiting for the previous iteration.

use std::rc::Rc;

use crate::Result;
use crate::device::Readback;

use super::averaged::Averaged;
use super::batch::BatchSource;
use super::inputs::StepInputs;
use super::memory::with_advice;
use super::report::{Report, TermName};
use super::state::{Mixing, Phase, TrainingState};
use super::trace::Trace;

/// An iteration that was submitted and may still be running.
pub struct PendingStep {
    /// Iteration number.
    pub iteration: u64,
    /// Learning rate of the iteration.
    pub learning_rate: f64,
    terms: Rc<Vec<TermName>>,
    failed: Readback,
    logged: Readback,
    /// The iteration whose images were the templates before this one.
    previous_templates: Option<u64>,
}

impl PendingStep {
    /// Returns whether [`TrainingState::wait`] would return without blocking.
    pub fn is_done(&self) -> Result<bool> {
        self.logged.is_there()
    }
}

impl TrainingState {
    /// Runs an iteration and updates the state, unless a loss or gradient is not finite.
    pub fn step<'a>(
        &mut self,
        batch: impl Into<BatchSource<'a>>,
        iteration: u64,
    ) -> Result<Report> {
        let pending = self.submit(batch, iteration)?;
        self.wait(pending)
    }

    /// Starts an iteration without waiting for it. The next one can be submitted meanwhile: if this
    /// one fails, later ones do not change the state either.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), with settings that need less. The state is
    /// unchanged, and the iteration can be submitted again. After another error of the device it may
    /// be half updated: load it again, on a new device.
    pub fn submit<'a>(
        &mut self,
        batch: impl Into<BatchSource<'a>>,
        iteration: u64,
    ) -> Result<PendingStep> {
        self.load(batch)?;
        let inputs = self.draw(iteration);
        self.submit_with(&inputs, Trace::off())
    }

    /// Waits for an iteration. If it failed, the state is the one before it, even if more
    /// iterations were submitted since.
    pub fn wait(&mut self, pending: PendingStep) -> Result<Report> {
        let failed = pending.failed.wait::<i32>()?[0] != 0;
        if failed {
            // An iteration that was submitted after the failed one reports an earlier state too.
            let before = self.templates.iteration.min(pending.previous_templates);
            self.templates.iteration = before;
        }
        let values = pending.logged.wait_f32()?;
        let stop = Averaged::stops(&values);
        let terms = pending.terms.iter().zip(values);
        let terms = terms.map(|((name, scale), value)| (name.clone(), value * scale)).collect();
        Ok(Report { terms, failed, stop })
    }

    /// Loads a batch into the buffers, for [`step_with`](Self::step_with).
    pub fn load<'a>(&mut self, batch: impl Into<BatchSource<'a>>) -> Result<()> {
        let loaded = self.batch.load(&self.device, &self.normalizer, batch.into());
        with_advice(loaded, &self.config, self.graphs.borrow().captures())
    }

    /// Runs an iteration on the loaded batch with the given inputs, which are those of all processes.
    pub fn step_with(&mut self, inputs: &StepInputs, trace: Trace) -> Result<Report> {
        let pending = self.submit_with(inputs, trace)?;
        self.wait(pending)
    }

    /// Submits an iteration like [`step_with`](Self::step_with), without waiting for it.
    pub fn submit_with(&mut self, inputs: &StepInputs, trace: Trace) -> Result<PendingStep> {
        let submitted = self.submit_iteration(inputs, trace);
        with_advice(submitted, &self.config, self.graphs.borrow().captures())
    }

    fn submit_iteration(&mut self, inputs: &StepInputs, mut trace: Trace) -> Result<PendingStep> {
        let device = self.device.clone();
        self.inputs.upload(&device, &inputs.of_slots(self.slots), self.stop)?;
        let phase = self.phase(inputs.iteration);
        // The work changes the state in the end, so nothing after it may lack memory.
        let mut failed = device.readback(&self.failed)?;
        let mut logged = device.readback(&self.averaged.logged)?;
        let terms = if trace.is_complete() {
            Rc::new(self.iterate(phase, &mut trace)?)
        } else if trace.is_on() {
            // The memory of the graphs is free, since none is being replayed once this one runs.
            Rc::new(device.graph_private(|| self.iterate(phase, &mut trace))?)
        } else {
            let graphs = self.graphs.clone();
            graphs.borrow_mut().run(phase, || self.iterate(phase, &mut trace))?
        };
        failed.start(&self.failed)?;
        logged.start(&self.averaged.read(terms.len())?)?;
        Ok(PendingStep {
            iteration: inputs.iteration,
            learning_rate: inputs.update.lr,
            failed,
            logged,
            terms,
            previous_templates: self.templates.iteration.replace(inputs.iteration),
        })
    }

    fn phase(&self, iteration: u64) -> Phase {
        let contrast = self.contrast.is_some() && iteration >= self.config.contrast.start;
        Phase { mixing: self.mixing(iteration), contrast }
    }

    /// QuadMix pastes from the previous iteration, so the first iteration of a run uses ClassMix.
    fn mixing(&self, iteration: u64) -> Mixing {
        let quad_mix = self.config.quadmix.enabled
            && self.batch.has_rare()
            && iteration >= self.config.quadmix.start.max(1)
            && iteration.checked_sub(1) == self.templates.iteration;
        if quad_mix { Mixing::QuadMix } else { Mixing::ClassMix }
    }
}
