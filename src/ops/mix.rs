//! ClassMix and QuadMix: choosing classes, and composing images from their pixels.

use crate::device::constants::label::LABEL_VALUES;
use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::augment::{Augmentation, UNIT, pixelwise};
use super::images::ImageNormalizer;

/// Images with their training targets, on the device.
#[derive(Clone)]
pub struct Labeled {
    /// The normalized images, B,H,W,3.
    pub image: Tensor,
    /// Train ids or pseudo-labels, B,H,W.
    pub label: Tensor,
    /// The loss weight of each pixel, B,H,W; `None` means 1 everywhere.
    pub weight: Option<Tensor>,
}

/// Pixels of a label that one block scans.
const PIXELS_PER_PART: usize = 4096;

/// Returns flags for the values that each label contains: B,256. label: B,H,W.
pub fn presence(device: &Device, label: &Tensor) -> Result<Tensor> {
    let batch = label.dim(0);
    let pixels = label.len() / batch;
    let parts = pixels.div_ceil(PIXELS_PER_PART).max(1);
    let mut counts = device.alloc(&[batch, parts, LABEL_VALUES], DType::I32)?;
    let grid = Grid::blocks(batch * parts);
    kernels::CountValues { label, counts: &mut counts, parts, pixels }.launch(device, grid)?;
    let mut present = device.alloc(&[batch, LABEL_VALUES], DType::U8)?;
    // There are few values with many splits each: small blocks with one thread per value spread
    // them over the device.
    let grid = Grid::blocks(batch * LABEL_VALUES / 32).threads(32);
    kernels::ValuePresence { counts: &counts, present: &mut present, parts, images: batch }
        .launch(device, grid)?;
    Ok(present)
}

/// The label values that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// All values that occur, including 255 (unlabeled), as in the released code.
    All,
    /// All values that occur except 255.
    Labeled,
}

impl Candidates {
    /// Returns the first value that is not a candidate.
    fn end(self) -> usize {
        match self {
            Candidates::All => LABEL_VALUES,
            Candidates::Labeled => LABEL_VALUES - 1,
        }
    }
}

/// Makes ClassMix's choice: for each image, half of the classes in the labels of the whole batch (of
/// all processes), as a table B,256. uniforms: B,n, where n is at least half the number of classes.
pub fn choose_half(
    device: &Device,
    label: &Tensor,
    uniforms: &Tensor,
    candidates: Candidates,
) -> Result<Tensor> {
    let present = device.gather(&presence(device, label)?)?;
    let batch = label.dim(0);
    let mut table = device.alloc(&[batch, LABEL_VALUES], DType::U8)?;
    kernels::ChooseHalf {
        present: &present,
        uniforms,
        table: &mut table,
        values: candidates.end(),
        whole: present.dim(0),
        batch,
        most: uniforms.channels(),
    }
    .launch(device, Grid::blocks(1))?;
    Ok(table)
}

/// Makes QuadMix's choice: two classes of each image's label, as a table B,256, and the values that
/// a later choice should avoid, B,2. With `positions`, the latter are positions among the present
/// classes instead of class values, as in the released code.
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

/// The long-tail crops for one type of mixed image, on the device.
#[derive(Clone)]
pub struct RareCrops {
    /// The pixels, B,2,S,S,3.
    pub rgb: Tensor,
    /// The labels, B,2,S,S.
    pub label: Tensor,
    /// The two classes, 2 elements.
    pub classes: Tensor,
}

/// How the bytes of long-tail crops are normalized: (channel - mean) · gain.
pub struct CropNormalization {
    /// The gain of each channel.
    pub gain: Tensor,
    /// If set, the channels are taken in BGR instead of RGB order.
    pub reversed: bool,
}

/// A layer of a mixed image: the confident pixels whose label is in the table.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// The images that the pixels come from.
    pub of: &'a Labeled,
    /// Flags of the pasted label values, B,256.
    pub table: &'a Tensor,
    /// Flags of the confident pixels, B,H,W; `None` means all are.
    pub confident: Option<&'a Tensor>,
}

/// The layers of a mixed image, from the bottom up.
#[derive(Clone, Copy)]
pub struct Mix<'a> {
    /// The images below all layers.
    pub under: &'a Labeled,
    /// The pasted layers, the upper one last.
    pub layers: [Option<Layer<'a>>; 2],
    /// Long-tail crops on top, the second class over the first. They keep the weights of the pixels
    /// beneath.
    pub rare: Option<(&'a RareCrops, &'a CropNormalization)>,
}

/// Mixes and applies color jitter in one pass over the pixels. Blur depends on neighboring pixels
/// and must run afterwards.
///
/// # Errors
/// Returns a shape error if the layers or crops do not have the size of the images below.
pub fn mix(
    device: &Device,
    normalizer: &ImageNormalizer,
    mix: Mix,
    jitter: Option<&Augmentation>,
) -> Result<Labeled> {
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
    // A pixel reads the color and weight of only one layer.
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
        gain: rare.map(|(_, colors)| &colors.gain),
        factors: jitter.map(|a| &a.factors),
        order: jitter.map(|a| &a.order),
        switches: jitter.map(|a| &a.switches),
        mean: &normalizer.mean,
        std: &normalizer.std,
        image: &mut image,
        label: &mut label,
        weight: &mut weight,
        reversed: rare.is_some_and(|(_, colors)| colors.reversed),
        unit: UNIT,
        batch,
        pixels: n / batch,
    }
    .launch(device, pixelwise(device, n / batch).touching(bytes))?;
    Ok(Labeled { image, label, weight: Some(weight) })
}
