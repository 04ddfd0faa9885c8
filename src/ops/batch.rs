//! Several inputs as one batch, and the outputs apart again.

use crate::device::{ALIGNMENT, Device};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Puts the samples of `b` behind those of `a`: B₁,… and B₂,… become B₁+B₂,…. No gradient.
pub fn stack(device: &Device, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape().get(1..) != b.shape().get(1..) || a.shape().is_empty() || a.dtype() != b.dtype() {
        return Err(Error::shape("stack", format!("{a:?} and {b:?} are no samples of one kind")));
    }
    let mut shape = a.shape().to_vec();
    shape[0] += b.dim(0);
    let y = device.alloc(&shape, a.dtype())?;
    device.copy(a, &mut y.slice(0, a.shape())?)?;
    device.copy(b, &mut y.slice(a.len(), b.shape())?)?;
    Ok(y)
}

/// The first `first` samples of x and the others, in x's own memory; a sample fills whole units of
/// [`ALIGNMENT`].
pub fn split(tape: &Tape, x: &Tensor, first: usize) -> Result<(Tensor, Tensor)> {
    let batch = x.shape().first().copied().unwrap_or(0);
    if !(1..batch).contains(&first) {
        return Err(Error::shape("split", format!("{first} samples of {x:?}, and others")));
    }
    let mut shapes = [x.shape().to_vec(), x.shape().to_vec()];
    (shapes[0][0], shapes[1][0]) = (first, batch - first);
    let middle: usize = shapes[0].iter().product();
    if !(middle * x.dtype().bytes()).is_multiple_of(ALIGNMENT) {
        return Err(Error::shape("split", format!("samples of {x:?} are not aligned")));
    }
    let parts = (x.slice(0, &shapes[0])?, x.slice(middle, &shapes[1])?);
    let (slot, shape, dtype) = (x.slot.clone(), x.shape().to_vec(), x.dtype());
    Ok(tape.record_pair(parts, move |gradients, da, db| {
        let device = gradients.device().clone();
        let dx = device.alloc(&shape, dtype)?;
        for (part, shape, start) in [(da, &shapes[0], 0), (db, &shapes[1], middle)] {
            let mut place = dx.slice(start, shape)?;
            match part {
                Some(gradient) => device.copy(&gradient, &mut place)?,
                None => device.zero(&mut place)?,
            }
        }
        gradients.give(&slot, dx)
    }))
}
