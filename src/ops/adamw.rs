//! AdamW over a flat store, and the commit of what a step leaves behind.

use crate::device::{Device, kernels};
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// An update of a network's parameters and, with it, of the mean teacher's. All flat stores are laid out
/// alike, in chunks of one parameter each.
pub struct AdamW<'a> {
    pub values: &'a mut Tensor,
    pub grads: &'a Tensor,
    pub exp_avg: &'a mut Tensor,
    pub exp_avg_sq: &'a mut Tensor,
    pub teacher: Option<&'a mut Tensor>,
    /// What products take of `values` and of the teacher, where that is another type.
    pub shadow: Option<&'a mut Tensor>,
    pub teacher_shadow: Option<&'a mut Tensor>,
    /// Multipliers of the rate and of the decay: chunks,2.
    pub multipliers: &'a Tensor,
    /// Rate, decay, 1 - β1^t, √(1 - β2^t), weight of the old teacher.
    pub schedule: &'a Tensor,
    /// Where it is set, nothing changes.
    pub failed: &'a Tensor,
    pub betas: [f64; 2],
    pub eps: f64,
}

impl AdamW<'_> {
    pub fn run(self, device: &Device) -> Result<()> {
        let chunks = self.multipliers.dim(0);
        let chunk_size = self.values.len() / chunks.max(1);
        let [beta1, beta2] = self.betas;
        kernels::Adamw {
            values: self.values,
            grads: self.grads,
            exp_avg: self.exp_avg,
            exp_avg_sq: self.exp_avg_sq,
            teacher: self.teacher,
            shadow: self.shadow,
            teacher_shadow: self.teacher_shadow,
            multipliers: self.multipliers,
            schedule: self.schedule,
            failed: self.failed,
            beta1,
            rest1: 1.0 - beta1,
            beta2,
            rest2: 1.0 - beta2,
            eps: self.eps,
            chunks,
            chunk_size,
        }
        .launch(device, device.rows(chunks, 4 * chunk_size))
    }
}

/// Copies `from` into `to`, unless the step failed: how buffers and templates become the next step's.
pub fn commit(device: &Device, from: &Tensor, to: &mut Tensor, failed: &Tensor) -> Result<()> {
    if from.len() != to.len() || from.dtype() != to.dtype() {
        return Err(Error::shape("commit", format!("{from:?} into {to:?}")));
    }
    let (elements, grid) = (from.len(), device.elements(from.len()));
    match from.dtype() {
        DType::U8 => kernels::CommitBytes { from, to, failed, elements }.launch(device, grid),
        _ => kernels::CommitReal { from, to, failed, elements }.launch(device, grid),
    }
}
