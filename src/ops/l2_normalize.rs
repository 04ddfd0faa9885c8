//! Vectors of unit length, as contrast losses compare them.

use crate::Result;
use crate::device::kernels;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Norm below which a vector is divided by this instead, as PyTorch's `normalize` does.
const LEAST: f64 = 1e-12;

/// Returns x divided by its L2 norm over the channels, in the compute type. x: …,C in the storage
/// type.
pub fn l2_normalize(tape: &Tape, x: &Tensor) -> Result<Tensor> {
    let device = tape.device();
    let (rows, channels) = (x.rows(), x.channels());
    let grid = device.rows(rows, channels);
    let (mut y, mut norms) = (device.empty(x.shape())?, device.empty(&[rows])?);
    kernels::L2Normalize { x, y: &mut y, norms: &mut norms, rows, channels, least: LEAST }
        .launch(device, grid)?;
    let (slot, unit) = (x.slot.clone(), y.detach());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        gradients.write(&slot, |dx, accumulate| {
            kernels::L2NormalizeBackward {
                y: &unit,
                norms: &norms,
                dy: &dy,
                dx,
                accumulate,
                rows,
                channels,
                least: LEAST,
            }
            .launch(&device, grid)
        })
    }))
}
