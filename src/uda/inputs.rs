//! Everything random or scheduled that an iteration consumes, drawn before it runs.
//!
//! A step does not read from the host: its inputs are uploaded beforehand and kernels read them
//! from device memory, so that the step can be captured as a CUDA graph and replayed. Where a
//! choice depends on what the device computes (for example the classes in a pseudo-label), the
//! inputs hold the uniform random number that decides it.

use bytemuck::cast_slice;

use crate::config::Config;
use crate::device::group::Slots;
use crate::device::{Device, StagingBuffers};
use crate::ops::augment::Augmentation;
use crate::optimizer::{UpdateNumbers, learning_rate, teacher_alpha};
use crate::rng::{Draw, Purpose};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// The student's passes in an iteration, in order. Each has its own detail crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassKind {
    /// Source images with their labels.
    Source,
    /// Mixed images of ClassMix, or those that QuadMix mixes over the source.
    Mixed,
    /// Images that QuadMix mixes over the target.
    MixedTarget,
    /// Masked images.
    Masked,
    /// Target images with their pseudo-labels.
    Target,
}

impl PassKind {
    /// Returns the name of the pass in profiles.
    pub fn name(self) -> &'static str {
        match self {
            PassKind::Source => "source",
            PassKind::Mixed => "mixed",
            PassKind::MixedTarget => "mixed_target",
            PassKind::Masked => "masked",
            PassKind::Target => "target",
        }
    }
}

/// Number of kinds of passes.
pub const PASSES: usize = 5;
/// Groups of images that are augmented: mixed, mixed over the target, masked, source, target.
const GROUPS: usize = 5;
/// Maximum number of classes that ClassMix chooses: half of all label values, rounded up.
pub const MAX_CLASSES: usize = 128;

/// Color jitter and blur of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageAugment {
    /// Brightness, contrast and saturation around 1, and hue around 0 in turns.
    pub factors: [f32; 4],
    /// Order in which the four factors are applied.
    pub order: [i32; 4],
    /// Standard deviation of the blur in pixels.
    pub sigma: f32,
}

/// Switches for the augmentation of a group of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// Whether color jitter is applied.
    pub jitter: bool,
    /// Whether the blur is applied.
    pub blur: bool,
}

/// Inputs of one iteration, on the host. The fields are public so that tests can substitute
/// recorded draws.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInputs {
    /// Iteration number, counted from 0.
    pub iteration: u64,
    /// Learning rate and other scalars of the optimizer step.
    pub update: UpdateNumbers,
    /// The same for the projection head, which learns from `contrast.start` on.
    pub late_update: UpdateNumbers,
    /// Key of the random numbers for drop-path and dropout.
    pub drop_key: u64,
    /// Detail crop of each pass, indexed by [`PassKind`]: y1, y2, x1, x2.
    pub detail_boxes: [[i32; 4]; PASSES],
    /// B rows of [`MAX_CLASSES`] uniforms. To choose half of k classes, ClassMix uses the first
    /// ⌈k/2⌉ of a row.
    pub class_mix: Vec<f32>,
    /// B rows of 2 uniforms that choose the classes of the source template.
    pub template_source: Vec<[f32; 2]>,
    /// B rows of 2 uniforms that choose the classes of the target template.
    pub template_target: Vec<[f32; 2]>,
    /// Switches of the masked images, after those of all others.
    pub switches: [Switches; 2],
    /// Augmentations of 5·B images: mixed, mixed over the target, masked, source, target.
    pub augment: Vec<ImageAugment>,
    /// Boxes for the class-balanced crop of each target image, B·n: y1, y2, x1, x2. None without it.
    pub crop_boxes: Vec<[i32; 4]>,
    /// B·gh·gw uniforms of the block mask, with gh × gw cells per image.
    pub mask_grid: Vec<f32>,
}

/// Returns the number of cells of the block mask along a side. Halves are rounded to even, like in
/// the reference.
pub fn mask_cells(crop: usize, block: usize) -> usize {
    ((crop as f64 / block as f64).round_ties_even() as usize).max(1)
}

impl StepInputs {
    /// Draws all inputs of `iteration`. They are a pure function of the configuration, the
    /// iteration, and the iteration of the optimizer's first update.
    pub fn draw(config: &Config, iteration: u64, first_update: i64) -> StepInputs {
        let (batch, crop) = (config.data.batch, config.data.crop);
        let draw =
            |purpose, slot: usize| Draw::new(config.seed, iteration, purpose, slot as u64, 0);
        let uniforms = |purpose, slot, n: usize| {
            let mut draw = draw(purpose, slot);
            (0..n).map(move |_| draw.uniform_f32())
        };
        let pair = |purpose, slot| {
            let mut draw = draw(purpose, slot);
            [draw.uniform_f32(), draw.uniform_f32()]
        };
        let cells = mask_cells(crop, config.mask.block);
        let augment = &config.augment;
        let image = |i: usize| {
            // The reference augments all masked images in one call, and those of each domain, so they
            // share one order and one sigma.
            let call = if i < 2 * batch { i } else { i / batch * batch };
            let mut factors = draw(Purpose::AugmentFactors, i);
            let strength = augment.jitter_strength;
            let mut around = |middle: f32| factors.range_f32(middle - strength, middle + strength);
            let [low, high] = augment.blur_sigma;
            ImageAugment {
                factors: [around(1.0), around(1.0), around(1.0), around(0.0)],
                order: shuffled([0, 1, 2, 3], &mut draw(Purpose::AugmentOrder, call)),
                sigma: draw(Purpose::AugmentSigma, call).range_f32(low, high),
            }
        };
        let switches = |group| {
            let [jitter, blur] = pair(Purpose::AugmentSwitch, group);
            Switches {
                jitter: happens(jitter, augment.jitter_prob),
                blur: happens(blur, augment.blur_prob),
            }
        };
        let updates = (iteration as i64 + 1).saturating_sub(first_update).max(1) as u64;
        let lr = learning_rate(config.optimizer.lr, &(&config.schedule).into(), iteration);
        // The update at the end of this iteration produces the teacher of the next one.
        let alpha = teacher_alpha(config.teacher.ema_decay, iteration + 1);
        // Like PyTorch, which leaves parameters alone that never had a gradient: the updates count
        // from the first one on.
        let start = config.contrast.start;
        let (late_lr, late) = match iteration.checked_sub(start) {
            Some(before) => (lr, updates.min(before + 1)),
            None => (0.0, 1),
        };
        let settings = (&config.optimizer).into();
        StepInputs {
            iteration,
            update: UpdateNumbers::new(&settings, lr, updates, alpha),
            late_update: UpdateNumbers::new(&settings, late_lr, late, alpha),
            drop_key: draw(Purpose::DropKey, 0).bits(),
            detail_boxes: std::array::from_fn(|pass| {
                detail_box(config, draw(Purpose::DetailBox, pass))
            }),
            class_mix: (0..batch)
                .flat_map(|b| uniforms(Purpose::MixClasses, b, MAX_CLASSES))
                .collect(),
            template_source: (0..batch).map(|b| pair(Purpose::SourceClasses, b)).collect(),
            template_target: (0..batch).map(|b| pair(Purpose::TargetClasses, b)).collect(),
            switches: [switches(0), switches(1)],
            augment: (0..GROUPS * batch).map(image).collect(),
            crop_boxes: (0..batch)
                .flat_map(|b| crop_boxes(config, draw(Purpose::CropBoxes, b)))
                .collect(),
            mask_grid: (0..batch)
                .flat_map(|b| uniforms(Purpose::MaskGrid, b, cells * cells))
                .collect(),
        }
    }
}

impl StepInputs {
    /// Returns the inputs of some images of the batch; those of the whole batch stay as they are.
    pub fn of_slots(&self, slots: Slots) -> StepInputs {
        fn rows<T: Clone>(all: &[T], slots: Slots) -> Vec<T> {
            let width = all.len() / slots.all;
            all[slots.first * width..(slots.first + slots.count) * width].to_vec()
        }
        let by_pass = self.augment.chunks(slots.all);
        StepInputs {
            class_mix: rows(&self.class_mix, slots),
            template_source: rows(&self.template_source, slots),
            template_target: rows(&self.template_target, slots),
            augment: by_pass.flat_map(|images| rows(images, slots)).collect(),
            mask_grid: rows(&self.mask_grid, slots),
            crop_boxes: rows(&self.crop_boxes, slots),
            ..*self
        }
    }
}

/// Shuffles by the algorithm of Fisher and Yates: every order is equally likely.
fn shuffled<const N: usize>(mut items: [i32; N], draw: &mut Draw) -> [i32; N] {
    for last in (1..N).rev() {
        items.swap(last, draw.below(last + 1));
    }
    items
}

/// Decides an event of probability `prob` by a uniform draw from [0, 1). The released code compares the
/// draw with the threshold `1 - prob`, so high draws are the ones that count.
fn happens(draw: f32, prob: f32) -> bool {
    draw > 1.0 - prob
}

/// Draws the detail crop of HRDA: y1, y2, x1, x2 within the crop.
fn detail_box(config: &Config, mut draw: Draw) -> [i32; 4] {
    let (crop, hrda) = (config.data.crop, &config.network.hrda);
    let detail = hrda.detail_crop.min(crop);
    let margin = crop - detail;
    let choices = match hrda.released_offsets {
        true => (margin + 1) / hrda.divisible,
        false => margin / hrda.divisible + 1,
    };
    let mut offset = || (hrda.divisible * draw.below(choices)) as i32;
    let (y, x, side) = (offset(), offset(), detail as i32);
    [y, y + side, x, x + side]
}

/// Draws the boxes among which the class-balanced crop of a target image chooses.
fn crop_boxes(config: &Config, mut draw: Draw) -> Vec<[i32; 4]> {
    let (crop, balanced) = (config.data.crop, &config.class_balanced_crop);
    if !balanced.enabled {
        return Vec::new();
    }
    let [width, height] = config.target.resize;
    let mut offset = |side: usize| draw.below(side.saturating_sub(crop) + 1) as i32;
    let side = crop as i32;
    // The reference draws the row first.
    let boxes = (0..balanced.boxes).map(|_| [offset(height), offset(width)]);
    boxes.map(|[y, x]| [y, y + side, x, x + side]).collect()
}

/// [`StepInputs`] on the device, at addresses that do not change between steps.
pub struct UploadedInputs {
    /// Staging buffers that receive the next step's inputs while the current ones are in use.
    staging: StagingBuffers,
    reals: Tensor,
    words: Tensor,
    /// Learning rate, weight decay, bias corrections and EMA decay, see `kernels/optimizer.cu`; then
    /// those of [`StepInputs::late_update`].
    pub update: Tensor,
    /// B,[`MAX_CLASSES`]: see [`StepInputs::class_mix`].
    pub class_mix: Tensor,
    /// B,2: see [`StepInputs::template_source`].
    pub template_source: Tensor,
    /// B,2: see [`StepInputs::template_target`].
    pub template_target: Tensor,
    /// 5·B,4: see [`ImageAugment::factors`].
    pub factors: Tensor,
    /// 5·B: see [`ImageAugment::sigma`].
    pub sigmas: Tensor,
    /// B,gh·gw: see [`StepInputs::mask_grid`].
    pub mask_grid: Tensor,
    /// One detail crop of 4 values per pass.
    pub detail_boxes: [Tensor; PASSES],
    /// 5·B,4: see [`ImageAugment::order`].
    pub orders: Tensor,
    /// Switches of jitter and blur, per group of images.
    pub switches: [Tensor; 2],
    /// B,n,4: see [`StepInputs::crop_boxes`].
    pub crop_boxes: Tensor,
    /// One u64: see [`StepInputs::drop_key`].
    pub drop_key: Tensor,
    /// 1 if this process was asked to stop before the iteration, else 0.
    pub stop: Tensor,
}

impl UploadedInputs {
    /// Allocates buffers for the inputs of any iteration that have the shapes of `inputs`.
    pub fn new(device: &Device, inputs: &StepInputs) -> Result<UploadedInputs> {
        let batch = inputs.template_source.len();
        let cells = inputs.mask_grid.len() / batch.max(1);
        let (images, boxes) = (GROUPS * batch, inputs.crop_boxes.len());
        let reals = device.empty(&[10 + batch * (MAX_CLASSES + 4 + cells) + 5 * images + 1])?;
        let words = device.alloc(&[PASSES * 4 + 4 * images + 4 + 4 * boxes], DType::I32)?;
        let mut cursor = 0;
        let mut real = |shape: &[usize]| {
            let view = reals.slice(cursor, shape)?;
            cursor += view.len();
            Ok::<_, Error>(view)
        };
        let update = real(&[10])?;
        let class_mix = real(&[batch, MAX_CLASSES])?;
        let (template_source, template_target) = (real(&[batch, 2])?, real(&[batch, 2])?);
        let (factors, sigmas) = (real(&[images, 4])?, real(&[images])?);
        let mask_grid = real(&[batch, cells])?;
        let stop = real(&[1])?;
        let mut cursor = 0;
        let mut word = |shape: &[usize]| {
            let view = words.slice(cursor, shape)?;
            cursor += view.len();
            Ok::<_, Error>(view)
        };
        let detail_boxes = [word(&[4])?, word(&[4])?, word(&[4])?, word(&[4])?, word(&[4])?];
        let orders = word(&[images, 4])?;
        let switches = [word(&[2])?, word(&[2])?];
        let crop_boxes = word(&[batch, boxes / batch.max(1), 4])?;
        let drop_key = device.zeros(&[1], DType::U64)?;
        let parts = [&reals, &words, &drop_key].map(|tensor| (tensor.shape(), tensor.dtype()));
        Ok(UploadedInputs {
            staging: StagingBuffers::new(device, &parts)?,
            update,
            class_mix,
            template_source,
            template_target,
            factors,
            sigmas,
            mask_grid,
            detail_boxes,
            orders,
            switches,
            crop_boxes,
            drop_key,
            stop,
            reals,
            words,
        })
    }

    /// Returns views of the jitter and blur of a pass.
    pub fn augmentation(&self, kind: PassKind) -> Result<Augmentation> {
        let (position, group) = match kind {
            PassKind::Mixed => (0, 0),
            PassKind::MixedTarget => (1, 0),
            PassKind::Masked => (2, 1),
            PassKind::Source => (3, 0),
            PassKind::Target => (4, 0),
        };
        let batch = self.mask_grid.dim(0);
        let first = position * batch;
        Ok(Augmentation {
            factors: self.factors.slice(4 * first, &[batch, 4])?,
            order: self.orders.slice(4 * first, &[batch, 4])?,
            sigma: self.sigmas.slice(first, &[batch])?,
            switches: self.switches[group].clone(),
        })
    }

    /// Uploads the inputs of an iteration, and whether this process was asked to stop before it.
    pub fn upload(&mut self, device: &Device, inputs: &StepInputs, stop: bool) -> Result<()> {
        let mut reals: Vec<f32> = inputs.update.to_array().into();
        reals.extend(inputs.late_update.to_array());
        reals.extend(&inputs.class_mix);
        reals.extend(inputs.template_source.as_flattened());
        reals.extend(inputs.template_target.as_flattened());
        reals.extend(inputs.augment.iter().flat_map(|a| a.factors));
        reals.extend(inputs.augment.iter().map(|a| a.sigma));
        reals.extend(&inputs.mask_grid);
        reals.push(f32::from(u8::from(stop)));
        let mut words: Vec<i32> = inputs.detail_boxes.as_flattened().into();
        words.extend(inputs.augment.iter().flat_map(|a| a.order));
        words.extend(inputs.switches.iter().flat_map(|s| [s.jitter as i32, s.blur as i32]));
        words.extend(inputs.crop_boxes.as_flattened());
        let (reals, key) = (device.as_real(&reals), [inputs.drop_key]);
        self.staging.upload(&[&reals, cast_slice(&words), cast_slice(&key)], |arrived| {
            let places = [&mut self.reals, &mut self.words, &mut self.drop_key];
            arrived.iter().zip(places).try_for_each(|(from, to)| device.copy(from, to))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_switch_as_the_thresholds_did() {
        for (threshold, prob) in [(0.2f32, 0.8), (0.5, 0.5), (0.0, 1.0), (0.25, 0.75)] {
            for k in 0..1u32 << 24 {
                let draw = k as f32 / (1u32 << 24) as f32;
                assert_eq!(draw > threshold, happens(draw, prob), "{draw}, {threshold}");
            }
        }
    }
}
