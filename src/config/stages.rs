//! The stages of a run, and the method that they make up.

use super::check::side;
use super::schema::Config;

/// The stages that distinguish the methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    /// A mean teacher whose pseudo-labels the student learns from, mixed by ClassMix.
    pub teacher: bool,
    /// Masked image consistency.
    pub mask: bool,
    /// QuadMix, which replaces ClassMix from `quadmix.start` on.
    pub quadmix: bool,
    /// Sampling of source images by class.
    pub rare_class_sampling: bool,
    /// Two-resolution training and inference.
    pub hrda: bool,
    /// Contrast of features with class statistics.
    pub contrast: bool,
}

impl Stages {
    /// Returns the method whose preset is closest, one of [`METHODS`](super::METHODS).
    pub fn method(self) -> &'static str {
        match self {
            Stages { quadmix: true, .. } => "quadmix",
            Stages { teacher: false, .. } => "source_only",
            Stages { contrast: true, .. } => "sepico",
            Stages { mask: true, .. } => "mic",
            Stages { hrda: true, .. } => "hrda",
            Stages { rare_class_sampling: true, .. } => "daformer",
            _ => "dacs",
        }
    }

    /// Returns the method's name as its authors write it.
    pub fn title(self) -> &'static str {
        match self.method() {
            "quadmix" if !self.mask => "QuadMix without masking",
            "quadmix" => "QuadMix",
            "sepico" => "SePiCo",
            "mic" => "MIC",
            "hrda" => "HRDA",
            "daformer" => "DAFormer",
            "dacs" => "DACS",
            _ => "source only",
        }
    }
}

impl Config {
    /// Returns which stages this configuration enables.
    pub fn stages(&self) -> Stages {
        Stages {
            teacher: self.teacher.enabled,
            mask: self.mask.enabled,
            quadmix: self.quadmix.enabled,
            rare_class_sampling: self.rare_class_sampling.enabled,
            hrda: self.network.hrda.enabled,
            contrast: self.contrast.enabled,
        }
    }

    /// Returns whether training reads target images: they are only used with the teacher's
    /// pseudo-labels.
    pub fn learns_from_target(&self) -> bool {
        self.teacher.enabled
    }

    /// Returns width and height of the target images that training reads: crops, or whole images
    /// from which the device takes crops, padded so that the network takes them.
    pub fn target_size(&self) -> [usize; 2] {
        let of = side(&self.network);
        match self.class_balanced_crop.enabled {
            true => self.target.resize.map(|side| side.next_multiple_of(of)),
            false => [self.data.crop; 2],
        }
    }
}
