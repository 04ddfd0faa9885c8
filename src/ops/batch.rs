//! Joining several inputs into one batch and splitting the outputs again.

use crate::device::{ALIGNMENT, Device};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Concatenates tensors along the batch dimension: B₁,… and B₂,… become B₁+B₂,…. There is no
/// gradient.
///
/// # Errors
/// Returns a shape error if the tensors differ in sample shape or element type, or there are none.
pub fn stack(device: &Device, parts: &[Tensor]) -> Result<Tensor> {
    let wrong =
        || Error::shape("stack", format!("{parts:?} are not samples of the same shape and type"));
    let [first, ..] = parts else { return Err(wrong()) };
    let alike =
        |x: &Tensor| x.shape().get(1..) == first.shape().get(1..) && x.dtype() == first.dtype();
    if first.shape().is_empty() || !parts.iter().all(alike) {
        return Err(wrong());
    }
    let mut shape = first.shape().to_vec();
    shape[0] = parts.iter().map(|x| x.dim(0)).sum();
    let y = device.alloc(&shape, first.dtype())?;
    let mut start = 0;
    for x in parts {
        device.copy(x, &mut y.slice(start, x.shape())?)?;
        start += x.len();
    }
    Ok(y)
}

/// Splits x along the batch dimension into views of its memory, with the given numbers of samples.
///
/// # Errors
/// Returns a shape error if the samples do not add up to the batch, or a sample does not fill whole
/// units of [`ALIGNMENT`] bytes.
pub fn split(tape: &Tape, x: &Tensor, samples: &[usize]) -> Result<Vec<Tensor>> {
    let batch = x.shape().first().copied().unwrap_or(0);
    if samples.contains(&0) || samples.iter().sum::<usize>() != batch {
        return Err(Error::shape("split", format!("samples {samples:?} of {x:?}")));
    }
    let of_one = x.len() / batch.max(1);
    if samples.len() > 1 && !(of_one * x.dtype().bytes()).is_multiple_of(ALIGNMENT) {
        return Err(Error::shape("split", format!("samples of {x:?} are not aligned")));
    }
    let (mut places, mut start) = (Vec::new(), 0);
    for &n in samples {
        places.push((start, [&[n], &x.shape()[1..]].concat()));
        start += n * of_one;
    }
    let parts: Vec<Tensor> =
        places.iter().map(|(start, shape)| x.slice(*start, shape)).collect::<Result<_>>()?;
    let (slot, shape, dtype) = (x.slot.clone(), x.shape().to_vec(), x.dtype());
    Ok(tape.record_all(parts, move |gradients, arrived| {
        let device = gradients.device().clone();
        let dx = device.alloc(&shape, dtype)?;
        for (gradient, (start, shape)) in arrived.into_iter().zip(&places) {
            let mut place = dx.slice(*start, shape)?;
            match gradient {
                Some(gradient) => device.copy(&gradient, &mut place)?,
                None => device.zero(&mut place)?,
            }
        }
        gradients.give(&slot, dx)
    }))
}
