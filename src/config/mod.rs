//! Configuration: one TOML file holds every hyper-parameter of a run.
//!
//! The keys are the fields of these structs; `configs/gta_vit.toml` documents each of them and
//! gives the published value. [`Config::load`] reads a preset or a file, follows its `base`,
//! applies overrides, and checks every value.

mod check;
mod compare;
mod dataset;
mod device;
mod keys;
mod load;
mod notes;
mod origins;
mod presets;
mod renamed;
mod report;
mod schema;
mod sizes;
mod stages;

pub use check::{FILES, LAYOUTS};
pub use dataset::{DatasetConfig, FilesConfig, LabelValue};
pub use device::{MemoryLimit, is_device};
pub use notes::Notes;
pub use presets::{METHODS, preset_names, preset_notes};
pub use renamed::{renamed_keys, with_current_keys};
pub use schema::{
    AugmentConfig, BatchNormImages, ClassBalancedCropConfig, Config, ContrastConfig, ContrastKind,
    DataConfig, DeviceConfig, DomainConfig, EvalConfig, FeatureDistanceConfig, HrdaConfig,
    MaskConfig, MaskLabels, Masked, MixConfig, NetworkConfig, OptimizerConfig, ParallelConfig,
    ParamGroup, PseudoLabelConfig, QuadMixConfig, RareClassSampling, RunConfig, ScaleAttention,
    ScheduleConfig, TeacherConfig, WeightsConfig,
};
pub use stages::Stages;
