//! Addition with an optional ReLU, and casts to the compute type.

use crate::device::kernels;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::elementwise::{to_operand, to_real};

/// Casts a tensor of any shape from the storage type to the compute type.
pub fn upcast(tape: &Tape, x: &Tensor) -> Result<Tensor> {
    let device = tape.device();
    if x.dtype() == device.real() {
        return Ok(x.clone());
    }
    let mut y = device.empty(x.shape())?;
    to_real(device, x, &mut y, false)?;
    let slot = x.slot.clone();
    Ok(tape.record(y, move |gradients, dy| {
        let dx = to_operand(gradients.device(), &dy)?;
        gradients.give(&slot, dx)
    }))
}

/// Returns `x + y`, or `max(x + y, 0)` with `relu`.
///
/// # Errors
/// Returns a shape error if the shapes differ.
pub fn add(tape: &Tape, x: &Tensor, y: &Tensor, relu: bool) -> Result<Tensor> {
    if x.shape() != y.shape() {
        return Err(Error::shape("add", format!("{x:?} and {y:?}")));
    }
    let device = tape.device();
    let (elements, grid) = (x.len(), device.elements(x.len()));
    let mut sum = device.alloc(x.shape(), x.dtype())?;
    kernels::Add { x, y, z: &mut sum, relu, elements }.launch(device, grid)?;
    let (slots, kept) = ([x.slot.clone(), y.slot.clone()], relu.then(|| sum.clone()));
    Ok(tape.record(sum, move |gradients, dsum| {
        let passed = match kept {
            Some(sum) => {
                let device = gradients.device().clone();
                // Every element is read before it is written, so the result may reuse dsum's
                // memory.
                let mut passed =
                    if dsum.is_unique() { dsum.detach() } else { device.empty_like(&dsum)? };
                kernels::ReluBackward { z: &sum, dz: &dsum, dx: &mut passed, elements }
                    .launch(&device, grid)?;
                passed
            }
            None => dsum,
        };
        slots.iter().try_for_each(|slot| gradients.give(slot, passed.clone()))
    }))
}
