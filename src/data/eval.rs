//! Validation images, scaled as a whole, with labels at their original size.

use std::path::PathBuf;

use crate::{
    config::DomainConfig,
    data::{
        decode::load_rgb,
        labels::{Plane, check_size},
        layouts::{self, Pair, Split},
        prefetch::{Prefetcher, Task},
        resize::{Size, Window, cv_bilinear},
    },
    error::{Error, Result},
};

/// Decoder threads, and images decoded ahead. Small numbers suffice because segmenting an image
/// takes longer than decoding it.
const THREADS: usize = 2;
const AHEAD: usize = 2;

/// The validation images of a domain.
#[derive(Clone, Debug)]
pub struct EvalSet {
    pairs: Vec<Pair>,
    fit: [usize; 2],
    note: Option<String>,
}

/// One validation image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalSample {
    /// Path of the image.
    pub file: PathBuf,
    /// H,W,3 of size `fitted`: 8-bit RGB, not yet normalized.
    pub rgb: Vec<u8>,
    /// Size of the scaled image.
    pub fitted: Size,
    /// Train ids at the image's original size, 255 for unlabeled.
    pub label: Plane,
}

impl EvalSample {
    /// Returns the original size of the image, at which predictions are evaluated.
    pub fn original(&self) -> Size {
        self.label.size
    }
}

impl EvalSet {
    /// Lists the validation images of `domain`. They are scaled to fit `fit` (width, height),
    /// keeping their aspect ratio. The labels do not have to be prepared.
    ///
    /// # Errors
    /// The folder is missing or empty, or an image has no label and may not be left out.
    pub fn new(domain: &DomainConfig, classes: usize, fit: [usize; 2]) -> Result<Self> {
        if fit.contains(&0) {
            return Err(Error::config("eval.resize must be at least 1 x 1"));
        }
        let dataset = layouts::Domain::new(domain, classes)?;
        let (pairs, note) = dataset.labeled(&domain.root, Split::Val)?;
        Ok(EvalSet { pairs, fit, note })
    }

    /// Returns what the user should know about the dataset, if there is anything.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Returns the paths of the images and their labels.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Keeps only the first `count` images.
    pub fn truncate(&mut self, count: usize) {
        self.pairs.truncate(count);
    }

    /// Returns every `step`-th image, from `first` on.
    pub fn share(&self, first: usize, step: usize) -> EvalSet {
        let pairs = self.pairs.iter().skip(first).step_by(step).cloned().collect();
        EvalSet { pairs, ..self.clone() }
    }

    /// Iterates over the images in order, decoding ahead in background threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn iter(&self) -> Result<EvalSamples> {
        Ok(EvalSamples { samples: Prefetcher::new(self.clone(), 0, THREADS, AHEAD)? })
    }
}

impl Task for EvalSet {
    type Part = EvalSample;
    type Item = EvalSample;

    fn parts(&self, item: u64) -> Option<usize> {
        ((item as usize) < self.pairs.len()).then_some(1)
    }

    fn part(&self, item: u64, _: usize) -> Result<EvalSample> {
        let Pair { image, label: file } = &self.pairs[item as usize];
        let decoded = load_rgb(image)?;
        let label = file.load()?;
        check_size(image, decoded.size, &file.path, label.size)?;
        let fitted = decoded.size.fitted(self.fit);
        let rgb = cv_bilinear(decoded.rows(), fitted, Window::whole(fitted));
        Ok(EvalSample { file: image.clone(), rgb, fitted, label })
    }

    fn join(&self, _: u64, parts: Vec<EvalSample>) -> Result<EvalSample> {
        parts.into_iter().next().ok_or_else(|| Error::config("an image without parts"))
    }
}

/// Iterator over the images of an [`EvalSet`]. An unreadable image yields an error that names it,
/// and the next call continues with the image after it.
pub struct EvalSamples {
    samples: Prefetcher<EvalSet>,
}

impl Iterator for EvalSamples {
    type Item = Result<EvalSample>;

    fn next(&mut self) -> Option<Self::Item> {
        self.samples.next()
    }
}
