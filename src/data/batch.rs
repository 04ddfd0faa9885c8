//! The batch that one training iteration consumes.

use std::path::PathBuf;

use crate::data::resize::Size;

/// The 8-bit color nearest to the ImageNet mean: within 0.009 of 0 after normalization. Where
/// padding must be exactly 0, use [`Crops::extent`].
pub const PAD_RGB: [u8; 3] = [124, 116, 104];

/// Crops of one domain, 8-bit and not yet normalized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crops {
    /// Number of crops, B.
    pub batch: usize,
    /// Width and height of a crop in pixels.
    pub size: Size,
    /// B,H,W,3: pixels in RGB order.
    pub rgb: Vec<u8>,
    /// B,H,W: train ids, 255 for unlabeled. Empty for the target domain.
    pub label: Vec<u8>,
    /// B: width and height of the part that the image covers, from the upper left; an empty list
    /// means that every crop is covered completely. The rest of a crop is padding: label 255, valid
    /// 0, [`PAD_RGB`] in `rgb` and exactly 0 after normalization.
    pub extent: Vec<[u32; 2]>,
    /// B: the image file of each crop.
    pub files: Vec<PathBuf>,
}

/// A batch of both domains for one iteration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Iteration number, counted from 0. Every random draw of the batch is a function of it.
    pub iteration: u64,
    /// Labeled crops of the source domain.
    pub source: Crops,
    /// Unlabeled crops of the target domain.
    pub target: Crops,
    /// B,H,W: 1 where pseudo-labels of the target count, 0 in the margins of the full image and in
    /// padding.
    pub valid: Vec<u8>,
    /// Long-tail crops to paste; present only in QuadMix iterations.
    pub rare: Option<RareCrops>,
    /// Unreadable files that were replaced by other draws.
    pub skipped: Vec<BadFile>,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Complete error message.
    pub problem: String,
}

/// Long-tail crops for one QuadMix iteration: two classes, pasted in turn on each of the 2·B mixed
/// images. Every paste has its own file and crop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RareCrops {
    /// Train ids of the two classes.
    pub classes: [u8; 2],
    /// 2·B·2 crops, ordered by kind of mixed image (over the source, then over the target), image
    /// and class.
    pub crops: Crops,
}
