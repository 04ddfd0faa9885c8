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
    /// Where and how to compute.
    pub device: DeviceConfig,
    /// The labeled domain.
    pub source: DomainConfig,
    /// The unlabeled domain.
    pub target: DomainConfig,
    /// Classes other than those of Cityscapes.
    pub dataset: DatasetConfig,
    /// Crops, batches, and loading.
    pub data: DataConfig,
    /// Training by several processes.
    pub parallel: ParallelConfig,
    /// Sampling of source images by class.
    pub rare_class_sampling: RareClassSampling,
    /// Backbone and decoder.
    pub network: NetworkConfig,
    /// The mean teacher.
    pub teacher: TeacherConfig,
    /// The teacher's labels of target images.
    pub pseudo_label: PseudoLabelConfig,
    /// Strong augmentation of mixed and masked images.
    pub augment: AugmentConfig,
    /// ClassMix.
    pub mix: MixConfig,
    /// Masked image consistency.
    pub mask: MaskConfig,
    /// The ImageNet feature distance.
    pub feature_distance: FeatureDistanceConfig,
    /// QuadMix.
    pub quadmix: QuadMixConfig,
    /// Contrast of features with class statistics.
    pub contrast: ContrastConfig,
    /// Crops of target images by the classes in them.
    pub class_balanced_crop: ClassBalancedCropConfig,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// The learning rate over iterations.
    pub schedule: ScheduleConfig,
    /// The length of a run and what it saves.
    pub run: RunConfig,
    /// Sliding-window evaluation.
    pub eval: EvalConfig,
    /// Initial weights.
    pub weights: WeightsConfig,
    /// Warnings and notes from reading it. This is not a key.
    #[serde(skip)]
    pub notes: Notes,
}

/// Section `[device]`: where and how to compute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// `auto`, `host`, `cuda` or `cuda:N`.
    pub kind: String,
    /// `f32`, `tf32` or `bf16`.
    pub precision: String,
    /// Whether the same seed, configuration, and machine give the same bits on a GPU.
    pub deterministic: bool,
    /// Capture whole iterations as CUDA graphs where the device can.
    pub cuda_graph: bool,
    /// The most memory that tensors may take on the device: `none`, a size like `20GiB`, or a share
    /// like `75%` of the GPU's or, on the host, of the machine's memory.
    pub memory_limit: String,
    /// Worker threads of the host device; 0 means one per core.
    pub threads: usize,
}

/// The location of a domain's images, and the size that they are resized to before cropping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainConfig {
    /// One of [`LAYOUTS`](super::LAYOUTS).
    pub layout: String,
    /// Folder of the dataset.
    pub root: PathBuf,
    /// `[width, height]`: images are resized to fit inside, keeping their aspect ratio.
    pub resize: [usize; 2],
    /// Whether images without a label are left out instead of refused.
    pub skip_unlabeled: bool,
    /// Used only with the layout `files`.
    pub files: FilesConfig,
}

/// Section `[data]`: crops, batches, and loading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Side of the square training crops, pixels.
    pub crop: usize,
    /// Images per domain and iteration.
    pub batch: usize,
    /// Probability of a horizontal flip.
    pub flip: f32,
    /// Whether the colors of source crops are distorted.
    pub photometric_distortion: bool,
    /// A source crop is redrawn while one class covers this share of its labeled pixels or more.
    pub max_class_share: f32,
    /// Number of times a crop is drawn at most.
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

/// Section `[parallel]`: training by several processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParallelConfig {
    /// What started the processes: `auto`, `none`, `torchrun`, `mpi` or `slurm`.
    pub launcher: String,
    /// The images over which batch norm takes its statistics.
    pub batch_norm: BatchNormImages,
}

/// The images over which batch norm takes its statistics in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchNormImages {
    /// The whole batch.
    All,
    /// Those of one process.
    Rank,
}

/// Section `[rare_class_sampling]`: source images drawn by class, rare ones more often. DAFormer,
/// section 3.2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RareClassSampling {
    /// Whether this stage runs.
    pub enabled: bool,
    /// Temperature of the softmax over class frequencies; lower favors rare classes more.
    pub temperature: f64,
    /// Pixels of the class that an image's label must exceed to be drawn for it.
    pub min_pixels: u64,
    /// Multiple of `min_pixels` that a crop must exceed.
    pub min_crop_ratio: f64,
    /// Number of redraws of a crop that holds too little of its class.
    pub attempts: usize,
}

/// Section `[network]`: backbone and decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// `mit_b0` … `mit_b5`, `resnet50_v1c` or `resnet101_v1c`.
    pub backbone: String,
    /// `daformer`, `segformer` or `dlv2`.
    pub head: String,
    /// Number of classes.
    pub classes: usize,
    /// Width of the decoder (256 as published; SegFormer's: 768). `dlv2` has none.
    pub channels: usize,
    /// Dilations of the convolutions that `dlv2` sums.
    pub dilations: Vec<usize>,
    /// Channels of the projection head that contrast needs; 0: there is none.
    pub projection: usize,
    /// Probability of dropping the last residual branch of the backbone; it rises linearly from 0.
    pub drop_path: f32,
    /// Probability of dropping a channel before the classifier.
    pub dropout: f32,
    /// The backward pass runs the backbone's blocks again instead of keeping their activations.
    pub activation_checkpointing: bool,
    /// The student's passes go through a MiT as one batch.
    pub batch_student_passes: bool,
    /// Two-resolution training and inference.
    pub hrda: HrdaConfig,
}

/// Section `[network.hrda]`: two-resolution training and inference. HRDA, section 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HrdaConfig {
    /// Whether this stage runs.
    pub enabled: bool,
    /// Side of the high-resolution detail crop, pixels.
    pub detail_crop: usize,
    /// Number that the coordinates of detail crops are multiples of.
    pub divisible: usize,
    /// The last possible coordinate is never drawn, as in the released code.
    pub released_offsets: bool,
    /// Weight of the detail loss; the fused loss weighs the rest.
    pub detail_loss: f32,
    /// How the two scales are weighted.
    pub attention: ScaleAttention,
    /// Whether the windows of the detail scale overlap by half.
    pub overlap: bool,
    /// Size of the context image as a fraction of the whole image's: 1, 0.5 or 0.25.
    pub context_scale: f32,
}

impl HrdaConfig {
    /// Returns how many times smaller the context image is than the whole image.
    pub fn factor(&self) -> usize {
        (1.0 / self.context_scale).round().max(1.0) as usize
    }
}

/// How HRDA weights its two scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleAttention {
    /// By a head of its own, for each class and position.
    Learned,
    /// Equally, without such a head.
    Average,
}

/// Section `[teacher]`: the mean teacher. Self-training needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Trains on the target too: a mean teacher generates pseudo-labels, and ClassMix pastes source
    /// classes into target images. Off: supervised training on the source alone.
    pub enabled: bool,
    /// Decay of the exponential moving average of the student's parameters.
    pub ema_decay: f64,
}

/// Section `[pseudo_label]`: the teacher's labels of target images.
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

/// Section `[augment]`: strong augmentation of mixed and masked images.
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
    /// Source images, and target images that are not mixed, are augmented too.
    pub unmixed: bool,
}

/// Section `[mix]`: ClassMix. DACS, section 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixConfig {
    /// Unlabeled (255) is among the classes that ClassMix and QuadMix draw from, as in the
    /// released code.
    pub released_unlabeled: bool,
}

/// Section `[mask]`: masked image consistency. MIC, section 3.2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskConfig {
    /// Masked image consistency.
    pub enabled: bool,
    /// The domain whose images are masked.
    pub images: Masked,
    /// Jitter and blur, with switches of their own.
    pub augment: bool,
    /// Side of a mask block, pixels.
    pub block: usize,
    /// Share of blocks hidden.
    pub ratio: f32,
    /// Weight of the masked loss. HRDA's detail loss is not scaled by it.
    pub weight: f32,
    /// The network that labels the complete target images.
    pub labels: MaskLabels,
    /// Whether pixels weigh as much as the share of confident pseudo-labels, or fully.
    pub confidence_weight: bool,
}

/// The network whose predictions of complete target images are the labels of the masked ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskLabels {
    /// The mean teacher.
    Teacher,
    /// The student itself, as with an average that has no memory.
    Student,
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

/// Section `[feature_distance]`: the ImageNet feature distance. DAFormer, section 3.3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureDistanceConfig {
    /// Whether this stage runs.
    pub enabled: bool,
    /// Weight of the loss.
    pub weight: f32,
    /// Classes whose cells are compared.
    pub classes: Vec<u8>,
    /// Share of a cell that its majority class must cover.
    pub min_share: f32,
}

/// Section `[quadmix]`: QuadMix. UDASS, section 3.
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

/// Section `[contrast]`: features contrasted with class statistics. SePiCo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastConfig {
    /// Whether this stage runs.
    pub enabled: bool,
    /// What features are contrasted with.
    pub kind: ContrastKind,
    /// Divisor of similarities.
    pub temperature: f64,
    /// Weight of the regularizer.
    pub regularizer: f64,
    /// First iteration, counting from 0, that has the losses; the statistics begin with the run.
    pub start: u64,
    /// Share of a cell that its majority class must cover.
    pub min_share: f32,
    /// Most vectors that the bank holds of a class.
    pub memory: usize,
}

/// What features are contrasted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContrastKind {
    /// The mean and variance of each class (DistCL).
    Distributions,
    /// The means of each class in earlier iterations (BankCL).
    Bank,
    /// The mean of each class (ProtoCL).
    Prototypes,
}

/// Section `[class_balanced_crop]`: crops of target images by the classes in them. SePiCo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassBalancedCropConfig {
    /// Whether this stage runs.
    pub enabled: bool,
    /// Boxes drawn for each image.
    pub boxes: usize,
}

/// Section `[optimizer]`: AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
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

/// An entry of `optimizer.param_groups`: multipliers for the parameters whose names contain a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    /// Text that the names of the parameters contain.
    pub contains: String,
    /// Factor of the learning rate.
    #[serde(default = "one")]
    pub lr_mult: f64,
    /// Factor of the weight decay.
    #[serde(default = "one")]
    pub decay_mult: f64,
}

fn one() -> f64 {
    1.0
}

/// Section `[schedule]`: linear warm-up, then polynomial decay with power 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Iterations of linear warm-up.
    pub warmup: u64,
    /// Share of the learning rate that the warm-up starts from.
    pub warmup_ratio: f64,
    /// Iteration at which the learning rate reaches 0. In a file, 0 stands for `run.max_iters`, which
    /// reading the configuration puts in its place.
    pub end: u64,
}

/// Section `[run]`: the length of a run and what it saves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Number of iterations.
    pub max_iters: u64,
    /// Iterations between checkpoints.
    pub checkpoint_interval: u64,
    /// Number of newest checkpoints that are kept.
    pub keep: usize,
    /// Keeps the checkpoint of the best evaluation as `checkpoints/best.safetensors`.
    pub keep_best: bool,
    /// Iterations between evaluations; 0 means none during training.
    pub eval_interval: u64,
    /// Write event files for TensorBoard next to the log.
    pub tensorboard: bool,
    /// Iterations between images of what is trained on, in the event files; 0 means none.
    pub image_interval: u64,
    /// Folder for the log, checkpoints and images. Empty means a folder named after the
    /// configuration.
    pub out: PathBuf,
}

/// Section `[eval]`: sliding-window evaluation.
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

/// Section `[weights]`: initial weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsConfig {
    /// ImageNet weights of the backbone (a file), or `random`.
    pub init: String,
}
