//! A batch that is half source and half target, for masked training on both domains.

use crate::device::Device;
use crate::ops;
use crate::ops::mix::Labeled;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Joins the first images of both domains: half of the batch, rounded down, comes from the source.
pub fn half_of_each(device: &Device, source: &Labeled, target: &Labeled) -> Result<Labeled> {
    let batch = target.label.dim(0);
    let pixels = target.label.len() / batch;
    let of_source = batch / 2;
    if of_source == 0 {
        return Ok(target.clone());
    }
    let split = of_source * pixels;
    let join = |source: Option<&Tensor>, target: &Tensor| {
        let joined = device.empty_like(target)?;
        let step = target.len() / target.dim(0) / pixels;
        let part =
            |tensor: &Tensor, start: usize, n: usize| tensor.slice(start * step, &[n * step]);
        let mut first = part(&joined, 0, split)?;
        match source {
            Some(source) => device.copy(&part(source, 0, split)?, &mut first)?,
            None => ops::fill(device, &mut first, 1.0)?,
        }
        let rest = batch * pixels - split;
        device.copy(&part(target, 0, rest)?, &mut part(&joined, split, rest)?)?;
        Ok::<_, Error>(joined)
    };
    let weight = target.weight.as_ref();
    Ok(Labeled {
        image: join(Some(&source.image), &target.image)?,
        label: join(Some(&source.label), &target.label)?,
        weight: weight.map(|weight| join(source.weight.as_ref(), weight)).transpose()?,
    })
}
