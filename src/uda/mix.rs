//! ClassMix and QuadMix: choosing classes, and the image that their pixels make with others.

use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::augment::{Augmentation, Pixels, UNIT, pixelwise};

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

/// Which values each label holds: B,256. label: B,H,W.
pub fn presence(device: &Device, label: &Tensor) -> Result<Tensor> {
    let batch = label.dim(0);
    let pixels = label.len() / batch;
    let parts = pixels.div_ceil(PIXELS_PER_PART).max(1);
    let mut counts = device.alloc(&[batch, parts, VALUES], DType::I32)?;
    let grid = Grid::blocks(batch * parts);
    let (p, n) = (parts as i64, pixels as i64);
    kernels::count_values(device, grid, label, &mut counts, p, n)?;
    let mut present = device.alloc(&[batch, VALUES], DType::U8)?;
    // Few values, each of many parts: a thread for each of them, in small blocks.
    let grid = Grid::blocks(batch * VALUES / 32).threads(32);
    kernels::value_presence(device, grid, &counts, &mut present, p, batch as i64)?;
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
    let batch = label.dim(0);
    let mut table = device.alloc(&[batch, VALUES], DType::U8)?;
    let most = uniforms.channels() as i64;
    let grid = Grid::blocks(1);
    let (values, b) = (candidates.end(), batch as i64);
    kernels::choose_half(device, grid, &present, uniforms, &mut table, values, b, most)?;
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
    let batch = label.dim(0);
    let mut table = device.alloc(&[batch, VALUES], DType::U8)?;
    let mut chosen = device.alloc(&[batch, 2], DType::I32)?;
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
        batch as i64,
    )?;
    Ok((table, chosen))
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

/// How the bytes of long-tail crops become colours: (channel - mean) · gain.
pub struct RareColours {
    pub gain: Tensor,
    /// BGR instead of RGB.
    pub reversed: bool,
}

/// Pixels that lie over others: those whose label the table holds, where they are confident.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    pub of: &'a Labelled,
    /// B,256
    pub table: &'a Tensor,
    /// B,H,W; none: all are.
    pub confident: Option<&'a Tensor>,
}

/// What a mixed image is made of, from the bottom up.
#[derive(Clone, Copy)]
pub struct Mix<'a> {
    pub under: &'a Labelled,
    pub layers: [Option<Layer<'a>>; 2],
    /// Long-tail classes, the second over the first; the weights beneath stay.
    pub rare: Option<(&'a RareCrops, &'a RareColours)>,
}

/// Mixes and jitters in one pass over the pixels. A blur looks at neighbours, and comes after.
pub fn mix(
    device: &Device,
    pixels: &Pixels,
    mix: Mix,
    jitter: Option<&Augmentation>,
) -> Result<Labelled> {
    let Mix { under, layers: [lower, upper], rare } = mix;
    let (batch, n) = (under.label.dim(0), under.label.len());
    let layers = || [lower, upper].into_iter().flatten();
    for of in layers().map(|layer| layer.of).chain([under]) {
        if of.image.len() != 3 * n || of.label.len() != n {
            let problem = format!("{:?}, {:?} over {:?}", of.image, of.label, under.label);
            return Err(Error::shape("mix", problem));
        }
    }
    if let Some((crops, _)) = rare.filter(|(crops, _)| crops.label.len() != 2 * n) {
        let problem = format!("crops {:?} over {:?}", crops.label, under.label);
        return Err(Error::shape("mix", problem));
    }
    let mut image = device.empty_like(&under.image)?;
    let mut label = device.empty_like(&under.label)?;
    let mut weight = device.empty(under.label.shape())?;
    // Of all colours and weights, a pixel reads one layer's.
    let maps = |l: Layer| l.of.label.bytes() + l.confident.map_or(0, Tensor::bytes);
    let bytes = 2 * (image.bytes() + label.bytes() + weight.bytes())
        + layers().map(maps).sum::<usize>()
        + rare.map_or(0, |(crops, _)| crops.label.bytes());
    kernels::mix(
        device,
        pixelwise(device, n / batch).touching(bytes),
        &under.image,
        &under.label,
        under.weight.as_ref(),
        lower.map(|l| &l.of.image),
        lower.map(|l| &l.of.label),
        lower.and_then(|l| l.of.weight.as_ref()),
        lower.map(|l| l.table),
        lower.and_then(|l| l.confident),
        upper.map(|l| &l.of.image),
        upper.map(|l| &l.of.label),
        upper.and_then(|l| l.of.weight.as_ref()),
        upper.map(|l| l.table),
        upper.and_then(|l| l.confident),
        rare.map(|(crops, _)| &crops.rgb),
        rare.map(|(crops, _)| &crops.label),
        rare.map(|(crops, _)| &crops.classes),
        rare.map(|(_, colours)| &colours.gain),
        jitter.map(|a| &a.factors),
        jitter.map(|a| &a.order),
        jitter.map(|a| &a.switches),
        &pixels.mean,
        &pixels.std,
        &mut image,
        &mut label,
        &mut weight,
        rare.is_some_and(|(_, colours)| colours.reversed) as i32,
        UNIT,
        batch as i64,
        (n / batch) as i64,
    )?;
    Ok(Labelled { image, label, weight: Some(weight) })
}
