//! ClassMix and QuadMix: choosing classes, and the image that their pixels make with others.

use crate::device::constants::label::LABEL_VALUES;
use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::augment::{Augmentation, UNIT, pixelwise};
use super::images::ImageNormalizer;

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

/// Which values each label holds: B,256. label: B,H,W.
pub fn presence(device: &Device, label: &Tensor) -> Result<Tensor> {
    let batch = label.dim(0);
    let pixels = label.len() / batch;
    let parts = pixels.div_ceil(PIXELS_PER_PART).max(1);
    let mut counts = device.alloc(&[batch, parts, LABEL_VALUES], DType::I32)?;
    let grid = Grid::blocks(batch * parts);
    kernels::CountValues { label, counts: &mut counts, parts, pixels }.launch(device, grid)?;
    let mut present = device.alloc(&[batch, LABEL_VALUES], DType::U8)?;
    // Few values, each of many parts: a thread for each of them, in small blocks.
    let grid = Grid::blocks(batch * LABEL_VALUES / 32).threads(32);
    kernels::ValuePresence { counts: &counts, present: &mut present, parts, images: batch }
        .launch(device, grid)?;
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
    fn end(self) -> usize {
        match self {
            Candidates::All => LABEL_VALUES,
            Candidates::Labelled => LABEL_VALUES - 1,
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
    let mut table = device.alloc(&[batch, LABEL_VALUES], DType::U8)?;
    kernels::ChooseHalf {
        present: &present,
        uniforms,
        table: &mut table,
        values: candidates.end(),
        batch,
        most: uniforms.channels(),
    }
    .launch(device, Grid::blocks(1))?;
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
    let mut table = device.alloc(&[batch, LABEL_VALUES], DType::U8)?;
    let mut chosen = device.alloc(&[batch, 2], DType::I32)?;
    kernels::ChooseTwo {
        present: &present,
        uniforms,
        avoid,
        table: &mut table,
        chosen: Some(&mut chosen),
        positions,
        values: candidates.end(),
        batch,
    }
    .launch(device, Grid::blocks(1))?;
    Ok((table, chosen))
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
    normalizer: &ImageNormalizer,
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
    kernels::Mix {
        under: &under.image,
        under_label: &under.label,
        under_weight: under.weight.as_ref(),
        lower: lower.map(|l| &l.of.image),
        lower_label: lower.map(|l| &l.of.label),
        lower_weight: lower.and_then(|l| l.of.weight.as_ref()),
        lower_table: lower.map(|l| l.table),
        lower_confident: lower.and_then(|l| l.confident),
        upper: upper.map(|l| &l.of.image),
        upper_label: upper.map(|l| &l.of.label),
        upper_weight: upper.and_then(|l| l.of.weight.as_ref()),
        upper_table: upper.map(|l| l.table),
        upper_confident: upper.and_then(|l| l.confident),
        rgb: rare.map(|(crops, _)| &crops.rgb),
        crop_label: rare.map(|(crops, _)| &crops.label),
        classes: rare.map(|(crops, _)| &crops.classes),
        gain: rare.map(|(_, colours)| &colours.gain),
        factors: jitter.map(|a| &a.factors),
        order: jitter.map(|a| &a.order),
        switches: jitter.map(|a| &a.switches),
        mean: &normalizer.mean,
        std: &normalizer.std,
        image: &mut image,
        label: &mut label,
        weight: &mut weight,
        reversed: rare.is_some_and(|(_, colours)| colours.reversed),
        unit: UNIT,
        batch,
        pixels: n / batch,
    }
    .launch(device, pixelwise(device, n / batch).touching(bytes))?;
    Ok(Labelled { image, label, weight: Some(weight) })
}
