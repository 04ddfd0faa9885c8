//! What processes average once an iteration, after the backward of all passes: one buffer, so that it
//! takes one call.

use crate::Result;
use crate::device::Device;
use crate::device::group::BatchNormOver;
use crate::params::{CHUNK, Weights};
use crate::tensor::Tensor;

use super::report::MAX_TERMS;

/// Numbers that are averaged over the processes.
pub(super) struct Averaged {
    /// Gradients, reported terms with the request to stop and, if each process has its own,
    /// batch-norm statistics. None for a process that trains alone.
    all: Option<Tensor>,
    /// [`MAX_TERMS`] values, of which the first are the terms of the last iteration. In a group, a
    /// further one is above 0 if a process was asked to stop.
    pub logged: Tensor,
}

impl Averaged {
    /// Allocates the buffer, and moves into it what the networks have to average.
    pub fn new(
        device: &Device,
        student: &mut Weights,
        teacher: Option<&mut Weights>,
    ) -> Result<Averaged> {
        if device.place().size == 1 {
            return Ok(Averaged { all: None, logged: device.empty(&[MAX_TERMS])? });
        }
        let mut parts: Vec<&mut Tensor> = student.grads.iter_mut().collect();
        if device.batch_norm_over() == BatchNormOver::Rank {
            parts.push(&mut student.pending);
            parts.extend(teacher.map(|teacher| &mut teacher.pending));
        }
        let lengths = parts.iter().map(|part| part.len()).sum::<usize>();
        let all = device.scope("parameters", || device.zeros(&[CHUNK + lengths], device.real()))?;
        let mut start = CHUNK;
        for part in parts {
            let mut place = all.slice(start, part.shape())?;
            device.copy(part, &mut place)?;
            start += part.len();
            *part = place;
        }
        Ok(Averaged { logged: all.slice(0, &[MAX_TERMS + 1])?, all: Some(all) })
    }

    /// Averages over the processes. `stop` is above 0 if this one was asked to stop.
    pub fn exchange(&mut self, device: &Device, stop: &Tensor) -> Result<()> {
        let Some(all) = &mut self.all else { return Ok(()) };
        device.copy(stop, &mut self.logged.slice(MAX_TERMS, &[1])?)?;
        device.scope("exchange", || device.mean_over_group(all))
    }

    /// Returns what is read after an iteration with this number of terms.
    pub fn read(&self, terms: usize) -> Result<Tensor> {
        match self.all {
            Some(_) => Ok(self.logged.clone()),
            None => self.logged.slice(0, &[terms]),
        }
    }

    /// Returns whether a process was asked to stop, from what was read.
    pub fn stops(values: &[f32]) -> bool {
        values.get(MAX_TERMS).is_some_and(|&asked| asked > 0.0)
    }
}
