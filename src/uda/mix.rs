//! ClassMix and QuadMix: choosing classes and pasting their pixels.

use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// Images with what they are learned from, on the device.
#[derive(Clone)]
pub struct Labelled {
    /// B,H,W,3, normalised.
    pub image: Tensor,
    /// B,H,W train ids or pseudo-labels.
    pub label: Tensor,
    /// B,H,W; none: 1 everywhere.
    pub weight: Option<Tensor>,
}

/// Pixels of a label that one block looks through.
const PIXELS_PER_PART: usize = 4096;
const VALUES: usize = 256;

/// Which values each part of each label holds: B,parts,256. label: B,H,W.
pub fn presence(device: &Device, label: &Tensor) -> Result<Tensor> {
    let batch = label.dim(0);
    let pixels = label.len() / batch;
    let parts = pixels.div_ceil(PIXELS_PER_PART).max(1);
    let mut present = device.alloc(&[batch, parts, VALUES], DType::U8)?;
    let grid = Grid::blocks(batch * parts);
    kernels::label_presence(device, grid, label, &mut present, parts as i64, pixels as i64)?;
    Ok(present)
}

/// Values of a label that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// All that are there, 255 (unlabelled) among them, as released.
    All,
    Labelled,
}

impl Candidates {
    /// The first value that is none.
    fn end(self) -> i64 {
        match self {
            Candidates::All => VALUES as i64,
            Candidates::Labelled => VALUES as i64 - 1,
        }
    }
}

/// ClassMix's choice: for each image half of the classes in the batch's labels, as a table B,256.
/// uniforms: B,n, with n at least half of the classes.
pub fn choose_half(
    device: &Device,
    label: &Tensor,
    uniforms: &Tensor,
    candidates: Candidates,
) -> Result<Tensor> {
    let present = presence(device, label)?;
    let (batch, parts) = (label.dim(0), present.dim(1));
    let mut table = device.alloc(&[batch, VALUES], DType::U8)?;
    let most = uniforms.channels() as i64;
    let grid = Grid::blocks(1);
    let (values, b, parts) = (candidates.end(), batch as i64, parts as i64);
    kernels::choose_half(device, grid, &present, uniforms, &mut table, values, b, parts, most)?;
    Ok(table)
}

/// QuadMix's choice: two classes of each image's label, as a table B,256, and what a later choice
/// should avoid, B,2. `positions`: hand on positions among the present classes, as released.
pub fn choose_two(
    device: &Device,
    label: &Tensor,
    uniforms: &Tensor,
    candidates: Candidates,
    avoid: Option<&Tensor>,
    positions: bool,
) -> Result<(Tensor, Tensor)> {
    let present = presence(device, label)?;
    let (batch, parts) = (label.dim(0), present.dim(1));
    let mut table = device.alloc(&[batch, VALUES], DType::U8)?;
    let mut chosen = device.alloc(&[batch, 2], DType::I32)?;
    let (b, parts) = (batch as i64, parts as i64);
    kernels::choose_two(
        device,
        Grid::blocks(1),
        &present,
        uniforms,
        avoid,
        &mut table,
        Some(&mut chosen),
        positions as i32,
        candidates.end(),
        b,
        parts,
    )?;
    Ok((table, chosen))
}

/// B,H,W: 1 where the label is in the table, and the pixel confident.
pub fn class_mask(
    device: &Device,
    label: &Tensor,
    table: &Tensor,
    confident: Option<&Tensor>,
) -> Result<Tensor> {
    let mut mask = device.empty_like(label)?;
    let batch = label.dim(0);
    let pixels = label.len() / batch;
    let grid = device.elements(label.len());
    let (b, n) = (batch as i64, pixels as i64);
    kernels::class_mask(device, grid, label, table, confident, &mut mask, b, n)?;
    Ok(mask)
}

/// `over` where the mask is set, else `under`.
pub fn paste(
    device: &Device,
    mask: &Tensor,
    over: &Labelled,
    under: &Labelled,
) -> Result<Labelled> {
    let n = mask.len();
    for image in [over, under] {
        if image.image.len() != 3 * n || image.label.len() != n {
            let problem =
                format!("mask {mask:?}, image {:?}, label {:?}", image.image, image.label);
            return Err(Error::shape("paste", problem));
        }
    }
    let mut image = device.empty_like(&under.image)?;
    let mut label = device.empty_like(&under.label)?;
    let mut weight = device.empty(under.label.shape())?;
    kernels::paste(
        device,
        device.elements(8 * n),
        mask,
        &over.image,
        &over.label,
        over.weight.as_ref(),
        &under.image,
        &under.label,
        under.weight.as_ref(),
        &mut image,
        &mut label,
        &mut weight,
        n as i64,
    )?;
    Ok(Labelled { image, label, weight: Some(weight) })
}

/// The first images of each: half of the batch, rounded down, are the source's.
pub fn half_of_each(device: &Device, source: &Labelled, target: &Labelled) -> Result<Labelled> {
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
            None => {
                let grid = device.elements(split);
                kernels::fill(device, grid, &mut first, 1.0, split as i64)?;
            }
        }
        let rest = batch * pixels - split;
        device.copy(&part(target, 0, rest)?, &mut part(&joined, split, rest)?)?;
        Ok::<_, Error>(joined)
    };
    let weight = target.weight.as_ref();
    Ok(Labelled {
        image: join(Some(&source.image), &target.image)?,
        label: join(Some(&source.label), &target.label)?,
        weight: weight.map(|weight| join(source.weight.as_ref(), weight)).transpose()?,
    })
}

/// Long-tail crops of one kind of mixed image, on the device.
#[derive(Clone)]
pub struct RareCrops {
    /// B,2,S,S,3 and B,2,S,S
    pub rgb: Tensor,
    pub label: Tensor,
    /// 2
    pub classes: Tensor,
}

/// How the bytes of long-tail crops become colours: (channel - shift) · gain.
pub struct RareColours {
    pub shift: Tensor,
    pub gain: Tensor,
    /// BGR instead of RGB.
    pub reversed: bool,
}

/// Pastes the two classes of `crops` in turn on `mixed`; its weights stay as they are.
pub fn paste_rare(
    device: &Device,
    crops: &RareCrops,
    colours: &RareColours,
    mixed: &mut Labelled,
) -> Result<()> {
    let batch = mixed.label.dim(0);
    let pixels = mixed.label.len() / batch;
    if crops.label.len() != 2 * mixed.label.len() {
        let problem = format!("crops {:?} for labels {:?}", crops.label, mixed.label);
        return Err(Error::shape("paste_rare", problem));
    }
    kernels::paste_rare(
        device,
        device.elements(4 * mixed.label.len()),
        &crops.rgb,
        &crops.label,
        &crops.classes,
        &colours.shift,
        &colours.gain,
        &mut mixed.image,
        &mut mixed.label,
        colours.reversed as i32,
        batch as i64,
        pixels as i64,
    )
}
