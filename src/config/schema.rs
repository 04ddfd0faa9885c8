//! Every hyper-parameter of a run, as the keys of a configuration file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::dataset::{DatasetConfig, FilesConfig};
use super::notes::Notes;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Every random draw of the run is derived from it.
    pub seed: u64,
    pub device: DeviceConfig,
    pub source: DomainConfig,
    pub target: DomainConfig,
    pub dataset: DatasetConfig,
    pub data: DataConfig,
    pub rare_class_sampling: RareClassSampling,
    pub network: NetworkConfig,
    pub teacher: TeacherConfig,
    pub pseudo_label: PseudoLabelConfig,
    pub augment: AugmentConfig,
    pub mix: MixConfig,
    pub mask: MaskConfig,
    pub feature_distance: FeatureDistanceConfig,
    pub quadmix: QuadMixConfig,
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    pub run: RunConfig,
    pub eval: EvalConfig,
    pub weights: WeightsConfig,
    /// Warnings and notes from reading it. This is not a key.
    #[serde(skip)]
    pub notes: Notes,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// `auto`, `host` or `cuda`.
    pub kind: String,
    /// `f32`, `tf32` or `bf16`.
    pub precision: String,
    pub deterministic: bool,
    /// Capture whole iterations as CUDA graphs where the device can.
    pub cuda_graph: bool,
    /// Worker threads of the host device; 0 means one per core.
    pub threads: usize,
}

/// The location of a domain's images, and the size that they are resized to before cropping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainConfig {
    /// One of [`LAYOUTS`](super::LAYOUTS).
    pub layout: String,
    pub root: PathBuf,
    /// `[width, height]`: images are resized to fit inside, keeping their aspect ratio.
    pub resize: [usize; 2],
    /// Used only with the layout `files`.
    pub files: FilesConfig,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Side of the square training crops, pixels.
    pub crop: usize,
    /// Images per domain and iteration.
    pub batch: usize,
    /// Probability of a horizontal flip.
    pub flip: f32,
    /// A source crop is redrawn while one class covers this share of its labeled pixels or more.
    pub max_class_share: f32,
    pub crop_attempts: usize,
    /// Decoding threads; 0 means as many as cores.
    pub workers: usize,
    /// Batches prepared ahead.
    pub prefetch: usize,
    /// Number of unreadable files that a run skips; one more ends it.
    pub max_bad_files: usize,
    /// Folder of a toy world that `train` generates if it is missing; empty for real data.
    pub toy: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RareClassSampling {
    pub enabled: bool,
    pub temperature: f64,
    /// Pixels of the class that an image's label must exceed to be drawn for it.
    pub min_pixels: u64,
    /// Multiple of `min_pixels` that a crop must exceed.
    pub min_crop_ratio: f64,
    /// Number of redraws of a crop that holds too little of its class.
    pub attempts: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// `mit_b0` … `mit_b5`, `resnet50_v1c` or `resnet101_v1c`.
    pub backbone: String,
    /// `daformer`, `segformer` or `dlv2`.
    pub head: String,
    pub classes: usize,
    /// Width of the decoder (256 as published; SegFormer's: 768). `dlv2` has none.
    pub channels: usize,
    /// Dilations of the convolutions that `dlv2` sums.
    pub dilations: Vec<usize>,
    pub drop_path: f32,
    pub dropout: f32,
    /// The backward pass runs the backbone's blocks again instead of keeping their activations.
    pub activation_checkpointing: bool,
    /// The student's passes go through a MiT as one batch.
    pub batch_student_passes: bool,
    pub hrda: HrdaConfig,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HrdaConfig {
    pub enabled: bool,
    /// Side of the high-resolution detail crop, pixels.
    pub detail_crop: usize,
    /// Number that the coordinates of detail crops are multiples of.
    pub divisible: usize,
    /// The last possible coordinate is never drawn, as in the released code.
    pub released_offsets: bool,
    /// Weight of the detail loss; the fused loss weighs the rest.
    pub detail_loss: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Trains on the target too: a mean teacher generates pseudo-labels, and ClassMix pastes source
    /// classes into target images. Off: supervised training on the source alone.
    pub enabled: bool,
    /// Decay of the exponential moving average of the student's parameters.
    pub ema_decay: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PseudoLabelConfig {
    /// Confidence from which a pixel counts towards the weight of a batch's pseudo-labels.
    pub threshold: f32,
    /// Confidence a template pixel needs to be pasted by QuadMix.
    pub confident: f32,
    /// Rows and columns of the full image whose pseudo-labels have no weight: `[top, bottom, left,
    /// right]`.
    pub margins: [usize; 4],
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Probability of color jitter.
    pub jitter_prob: f32,
    /// Strength of brightness, contrast, saturation and hue.
    pub jitter_strength: f32,
    /// Probability of Gaussian blur.
    pub blur_prob: f32,
    /// Range of the blur's sigma.
    pub blur_sigma: [f32; 2],
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixConfig {
    /// Unlabelled (255) is among the classes that ClassMix and QuadMix draw from, as in the
    /// released code.
    pub released_unlabelled: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskConfig {
    /// Masked image consistency.
    pub enabled: bool,
    pub images: Masked,
    /// Jitter and blur, with switches of their own.
    pub augment: bool,
    /// Side of a mask block, pixels.
    pub block: usize,
    /// Share of blocks hidden.
    pub ratio: f32,
    /// Weight of the masked loss.
    pub weight: f32,
}

/// The images that masked image consistency masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Masked {
    /// Target images, with their pseudo-labels.
    Target,
    /// Source images, with their labels.
    Source,
    /// Half of each; the source's half is rounded down.
    Both,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureDistanceConfig {
    pub enabled: bool,
    pub weight: f32,
    /// Classes whose cells are compared.
    pub classes: Vec<u8>,
    /// Share of a cell that its majority class must cover.
    pub min_share: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuadMixConfig {
    /// QuadMix in place of ClassMix, from `start` on.
    pub enabled: bool,
    /// First iteration, counting from 0, that uses QuadMix.
    pub start: u64,
    /// Long-tail classes, drawn without replacement from this list (duplicates count).
    pub classes: Vec<u8>,
    /// A pasted crop must hold more pixels of its class.
    pub min_pixels: u64,
    /// `[width, height]` that a long-tail source image is resized to before cropping.
    pub resize: [usize; 2],
    /// Long-tail pixels enter as the released code makes them: BGR minus the RGB mean, over 255.
    /// `false` normalizes them like every other pixel.
    pub released_colors: bool,
    /// The target template's classes exclude the *positions* of the source template's, as the
    /// released code does. `false` excludes the classes themselves.
    pub released_exclusion: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
    /// Parameter groups. The first whose `contains` is part of a parameter's name applies.
    pub param_groups: Vec<ParamGroup>,
}

impl OptimizerConfig {
    /// Returns the multipliers of learning rate and weight decay for a parameter of this name.
    pub fn multipliers(&self, name: &str) -> (f64, f64) {
        let group = self.param_groups.iter().find(|group| name.contains(&group.contains));
        group.map_or((1.0, 1.0), |group| (group.lr_mult, group.decay_mult))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    pub contains: String,
    #[serde(default = "one")]
    pub lr_mult: f64,
    #[serde(default = "one")]
    pub decay_mult: f64,
}

fn one() -> f64 {
    1.0
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Iterations of linear warm-up.
    pub warmup: u64,
    /// Share of the learning rate that the warm-up starts from.
    pub warmup_ratio: f64,
    /// Iteration at which the learning rate reaches 0.
    pub end: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub max_iters: u64,
    pub checkpoint_interval: u64,
    /// Number of newest checkpoints that are kept.
    pub keep: usize,
    /// Iterations between evaluations; 0 means none during training.
    pub eval_interval: u64,
    /// Folder for the log, checkpoints and images. Empty means a folder named after the
    /// configuration.
    pub out: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// `[width, height]`: images are resized to fit inside, keeping their aspect ratio.
    pub resize: [usize; 2],
    /// Side of the sliding windows, pixels; 0: the whole image at once.
    pub window: usize,
    /// Step of the sliding windows, pixels.
    pub stride: usize,
    /// Windows per forward pass.
    pub batch: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsConfig {
    /// ImageNet weights of the backbone (a file), or `random`.
    pub init: String,
}
