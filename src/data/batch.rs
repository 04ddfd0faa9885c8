//! What one iteration of training consumes.

use std::path::PathBuf;

/// The byte nearest to the mean colour: within 0.009 of 0 after normalisation. A step that pads with
/// exactly 0 takes [`Crops::extent`].
pub const PAD_RGB: [u8; 3] = [124, 116, 104];

/// Square crops of one domain, 8-bit, not yet normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crops {
    pub batch: usize,
    /// Side of a crop, pixels.
    pub size: usize,
    /// B,S,S,3 in RGB order.
    pub rgb: Vec<u8>,
    /// B,S,S: train ids, 255 unlabelled. Empty for the target domain.
    pub label: Vec<u8>,
    /// B: width and height that the picture covers from the upper left; empty means all of every
    /// crop. Where an image is smaller than a crop the rest is padding: label 255, valid 0, and 0
    /// after normalisation, which [`PAD_RGB`] stands for in `rgb`.
    pub extent: Vec<[u32; 2]>,
    /// B: where each crop's image came from.
    pub files: Vec<PathBuf>,
}

/// What one iteration consumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Counts from 0; every random draw of the batch is a function of it.
    pub iteration: u64,
    pub source: Crops,
    pub target: Crops,
    /// B,S,S: 1 where the target's pseudo-labels may count, 0 in the margins of the full image.
    pub valid: Vec<u8>,
    /// Long-tail crops to paste, only in iterations that mix four ways.
    pub rare: Option<RareCrops>,
    /// Files that could not be read, in whose place others were drawn.
    pub skipped: Vec<BadFile>,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    pub path: PathBuf,
    /// The whole message.
    pub problem: String,
}

/// Long-tail crops for one QuadMix iteration: two classes, pasted in turn on each of the 2·B mixed
/// images, every paste from a file and crop of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RareCrops {
    pub classes: [u8; 2],
    /// `2·B·2` crops: mixed image kind (T→(SS), then T→(ST)), image, class.
    pub crops: Crops,
}
