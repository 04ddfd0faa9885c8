//! The images with the lowest IoU, kept while an evaluation goes on.

use std::path::PathBuf;

use super::pictures::{Panels, panels};
use crate::Result;
use crate::data::classes::Classes;
use crate::data::eval::EvalSample;
use crate::run::eval::per_image::ImageResult;

/// An image with its pictures.
pub struct Shown {
    /// The image's file.
    pub file: PathBuf,
    /// Mean IoU over the classes that occur in it.
    pub mean_iou: f64,
    /// Share of correct pixels.
    pub accuracy: f64,
    /// Its pictures.
    pub pictures: Panels,
}

/// Collects the worst images, worst first. Only their pictures are in memory.
pub struct Worst {
    classes: Classes,
    most: usize,
    shown: Vec<Shown>,
}

impl Worst {
    /// Keeps at most `most` images.
    pub fn new(classes: Classes, most: usize) -> Worst {
        Worst { classes, most, shown: Vec::new() }
    }

    /// Looks at an image and its prediction, train ids at the label's size.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the sizes differ.
    pub fn see(
        &mut self,
        sample: &EvalSample,
        prediction: &[u8],
        result: &ImageResult,
    ) -> Result<()> {
        // An image without labels is neither good nor bad.
        let place = self.shown.partition_point(|other| other.mean_iou <= result.mean_iou);
        if result.mean_iou.is_nan() || place >= self.most {
            return Ok(());
        }
        let pictures = panels(sample, prediction, &self.classes)?;
        let (mean_iou, accuracy) = (result.mean_iou, result.accuracy);
        let file = sample.file.clone();
        self.shown.insert(place, Shown { file, mean_iou, accuracy, pictures });
        self.shown.truncate(self.most);
        Ok(())
    }

    /// Returns the images, worst first.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }
}
