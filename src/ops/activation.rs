//! GELU.

use crate::Result;
use crate::device::kernels;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// `x·Φ(x)`, exact; any shape.
pub fn gelu(tape: &Tape, x: &Tensor) -> Result<Tensor> {
    let device = tape.device();
    let (n, grid) = (x.len() as i64, device.elements(x.len()));
    let mut y = device.empty_like(x)?;
    kernels::gelu_forward(device, grid, x, &mut y, n)?;
    let x = x.clone();
    Ok(tape.record(y, move |gradients, dy| {
        let mut dx = gradients.device().empty_like(&x)?;
        kernels::gelu_backward(gradients.device(), grid, &x, &dy, &mut dx, n)?;
        gradients.give(&x.slot, dx)
    }))
}
