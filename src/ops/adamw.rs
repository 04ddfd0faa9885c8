//! AdamW over a flat parameter store, and the commit of the values that a step produces.

use crate::device::{Device, kernels};
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// One AdamW update of a network's parameters, fused with the EMA update of the mean teacher. All
/// flat stores have the same layout, in chunks that belong to one parameter each.
pub struct AdamW<'a> {
    /// The student's parameters.
    pub values: &'a mut Tensor,
    /// The gradients.
    pub grads: &'a Tensor,
    /// The first moments.
    pub exp_avg: &'a mut Tensor,
    /// The second moments.
    pub exp_avg_sq: &'a mut Tensor,
    /// The teacher's parameters, if there is a teacher.
    pub teacher: Option<&'a mut Tensor>,
    /// The low-precision copy of `values`, if the storage type is not the compute type.
    pub low_precision: Option<&'a mut Tensor>,
    /// The low-precision copy of the teacher's parameters.
    pub teacher_low_precision: Option<&'a mut Tensor>,
    /// The multipliers of learning rate and weight decay for each chunk: chunks,2.
    pub multipliers: &'a Tensor,
    /// The learning rate, weight decay, bias corrections 1 - β1^t and √(1 - β2^t), and EMA decay of
    /// the teacher.
    pub schedule: &'a Tensor,
    /// A flag; if it is set, nothing changes.
    pub failed: &'a Tensor,
    /// The decay rates β1 and β2 of the moments.
    pub betas: [f64; 2],
    /// The term added to the denominator.
    pub eps: f64,
}

impl AdamW<'_> {
    /// Launches the update.
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
            low_precision: self.low_precision,
            teacher_low_precision: self.teacher_low_precision,
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

/// Copies `from` into `to` unless the step failed. This is how buffers and templates carry over to
/// the next step.
///
/// # Errors
/// Returns a shape error if the sizes or element types differ.
pub fn commit(device: &Device, from: &Tensor, to: &mut Tensor, failed: &Tensor) -> Result<()> {
    if from.len() != to.len() || from.dtype() != to.dtype() {
        return Err(Error::shape("commit", format!("{from:?} into {to:?}")));
    }
    let (elements, grid) = (from.len(), device.elements(from.len()));
    match from.dtype() {
        DType::U8 => kernels::CommitBytes { from, to, failed, elements }.launch(device, grid),
        DType::I64 => kernels::CommitCounts { from, to, failed, elements }.launch(device, grid),
        _ => kernels::CommitReal { from, to, failed, elements }.launch(device, grid),
    }
}
