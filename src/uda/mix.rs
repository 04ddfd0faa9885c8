//! A batch that is half source and half target, for masked training on both domains.

use crate::device::Device;
use crate::device::group::Slots;
use crate::ops;
use crate::ops::mix::Labeled;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Joins the first images of both domains: half of the whole batch, rounded down, comes from the
/// source. Returns the images in `slots`.
pub fn half_of_each(
    device: &Device,
    source: &Labeled,
    target: &Labeled,
    slots: Slots,
) -> Result<Labeled> {
    let half = slots.all / 2;
    if half == 0 {
        return Ok(target.clone());
    }
    let of_source = half.saturating_sub(slots.first).min(slots.count);
    let of_target = slots.count - of_source;
    let join = |source: Option<&Tensor>, target: &Tensor| {
        // The target's images are not in their own slots, so they may be another process's.
        let targets = device.gather(target)?;
        let joined = device.empty_like(target)?;
        let image = target.len() / slots.count;
        let part = |of: &Tensor, start: usize, n: usize| of.slice(start * image, &[n * image]);
        if of_source > 0 {
            let mut first = part(&joined, 0, of_source)?;
            match source {
                Some(source) => device.copy(&part(source, 0, of_source)?, &mut first)?,
                None => ops::fill(device, &mut first, 1.0)?,
            }
        }
        if of_target > 0 {
            let rest = part(&targets, slots.first + of_source - half, of_target)?;
            device.copy(&rest, &mut part(&joined, of_source, of_target)?)?;
        }
        Ok::<_, Error>(joined)
    };
    let weight = target.weight.as_ref();
    Ok(Labeled {
        image: join(Some(&source.image), &target.image)?,
        label: join(Some(&source.label), &target.label)?,
        weight: weight.map(|weight| join(source.weight.as_ref(), weight)).transpose()?,
    })
}
