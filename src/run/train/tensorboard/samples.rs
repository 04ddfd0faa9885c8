//! Images of an iteration: what each pass was trained on, with its labels.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageResult};

use crate::Result;
use crate::data::classes::Classes;
use crate::device::Device;
use crate::ops::{MEAN, STD};
use crate::tensor::Tensor;

/// Number of images of a batch that are kept.
const IMAGES: usize = 2;
/// Longest side in pixels of an image that is shown in its own size.
const MAX_SIDE: usize = 512;

/// The passes of an iteration, each with its name and the names under which its images and labels
/// are traced.
const PASSES: [(&str, &str, &str); 6] = [
    ("source", "src.img", "src.label"),
    ("target", "target.img", "teacher/label"),
    ("mixed", "mix.img", "mix.label"),
    ("mixed_source", "mix_tss.img", "mix_tss.label"),
    ("mixed_target", "mix_tst.img", "mix_tst.label"),
    ("masked", "masked.img", "masked.label"),
];
/// The teacher's confidence in each pixel of the target images.
const CONFIDENCE: &str = "teacher/max_prob";

/// Intermediate results of an iteration, copied to the host.
#[derive(Default)]
pub struct Samples {
    passes: [Pass; PASSES.len()],
    /// B,H,W: of all images of the batch.
    confidence: Option<Vec<f32>>,
}

/// The first images of a pass.
#[derive(Default)]
struct Pass {
    /// Number of images, height and width.
    size: [usize; 3],
    /// N,H,W,3, normalized.
    pixels: Vec<f32>,
    /// N,H,W.
    labels: Vec<u8>,
}

/// Images of a pass, one below the other, each with its labels on its right, and for the target the
/// teacher's confidence from black to white.
pub struct Picture {
    /// The pass.
    pub name: &'static str,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// H,W,3.
    pub rgb: Vec<u8>,
}

impl Samples {
    /// Copies a traced result, if it is one that is shown.
    ///
    /// # Errors
    /// The device fails.
    pub fn see(&mut self, device: &Device, name: &str, tensor: &Tensor) -> Result<()> {
        if name == CONFIDENCE {
            self.confidence = Some(device.read_f32(tensor)?);
        }
        for (pass, (_, image, label)) in self.passes.iter_mut().zip(PASSES) {
            let count = tensor.shape().first().map_or(0, |&batch| batch.min(IMAGES));
            if name == image {
                let [_, height, width, channels] = tensor.bhwc("samples")?;
                pass.size = [count, height, width];
                let first = tensor.slice(0, &[count, height, width, channels])?;
                pass.pixels = device.read_f32(&first)?;
            } else if name == label && tensor.shape().len() == 3 {
                let first = tensor.slice(0, &[count, tensor.dim(1), tensor.dim(2)])?;
                pass.labels = device.read(&first)?;
            }
        }
        Ok(())
    }

    /// Returns the teacher's confidence in each pixel of the batch; `None` without a teacher.
    pub fn confidences(&self) -> Option<&[f32]> {
        self.confidence.as_deref()
    }

    /// Returns a picture of each pass that the iteration had.
    pub fn pictures<'a>(&'a self, classes: &'a Classes) -> impl Iterator<Item = Picture> + 'a {
        let passes = self.passes.iter().zip(PASSES);
        passes.filter(|(pass, _)| pass.is_complete()).map(|(pass, (name, ..))| {
            let confidence = self.confidence.as_deref().filter(|_| name == "target");
            pass.picture(name, confidence, classes)
        })
    }
}

impl Pass {
    fn is_complete(&self) -> bool {
        let pixels = self.size.iter().product::<usize>();
        pixels > 0 && self.labels.len() == pixels && self.pixels.len() == 3 * pixels
    }

    fn picture(
        &self,
        name: &'static str,
        confidence: Option<&[f32]>,
        classes: &Classes,
    ) -> Picture {
        let [count, height, width] = self.size;
        let confidence = confidence.filter(|all| all.len() >= count * height * width);
        // Pixels of a side that one shown pixel stands for.
        let step = height.max(width).div_ceil(MAX_SIDE);
        let (rows, columns) = (height.div_ceil(step), width.div_ceil(step));
        let panels = if confidence.is_some() { 3 } else { 2 };
        let mut rgb = Vec::with_capacity(count * rows * columns * panels * 3);
        for row in 0..count * rows {
            let (image, top) = (row / rows, row % rows * step);
            let bottom = height.min(top + step);
            // The mean of a cell's pixels, of which each has `channels` numbers.
            let mean = |all: &[f32], channels: usize, channel: usize, left: usize| {
                let right = width.min(left + step);
                let first = |y: usize| (image * height + y) * width;
                let cells = (top..bottom).flat_map(|y| (left..right).map(move |x| first(y) + x));
                let sum: f32 = cells.map(|pixel| all[channels * pixel + channel]).sum();
                sum / ((bottom - top) * (right - left)) as f32
            };
            for left in (0..width).step_by(step) {
                let color = |c: usize| mean(&self.pixels, 3, c, left) * STD[c] + MEAN[c];
                // The conversion cuts to what a byte holds.
                rgb.extend([0, 1, 2].map(|channel| color(channel).round() as u8));
            }
            for left in (0..width).step_by(step) {
                let label = self.labels[(image * height + top) * width + left];
                rgb.extend(classes.color(label).unwrap_or_default());
            }
            let gray = confidence.into_iter().flat_map(|all| {
                (0..width).step_by(step).map(move |left| (255.0 * mean(all, 1, 0, left)) as u8)
            });
            gray.for_each(|gray| rgb.extend([gray; 3]));
        }
        Picture { name, width: panels * columns, height: count * rows, rgb }
    }
}

impl Picture {
    /// Encodes the picture as a PNG.
    ///
    /// # Errors
    /// Its sides are too long for one.
    pub fn png(&self) -> ImageResult<Vec<u8>> {
        let mut bytes = Vec::new();
        let encoder = PngEncoder::new_with_quality(
            &mut bytes,
            CompressionType::Default,
            FilterType::Adaptive,
        );
        let [width, height] = [self.width, self.height].map(|side| side as u32);
        encoder.write_image(&self.rgb, width, height, ExtendedColorType::Rgb8)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_image_labels_and_confidence_side_by_side() {
        // Two images of 1x2 pixels: ImageNet's mean, and one standard deviation above it.
        let pass = Pass {
            size: [2, 1, 2],
            pixels: [0.0, 1.0].iter().flat_map(|&x| [x; 6]).collect(),
            labels: vec![0, 255, 13, 1],
        };
        let samples = Samples {
            passes: [
                Pass::default(),
                pass,
                Pass::default(),
                Pass::default(),
                Pass::default(),
                Pass::default(),
            ],
            confidence: Some(vec![0.0, 1.0, 0.5, 0.2]),
        };
        let pictures: Vec<Picture> = samples.pictures(&Classes::cityscapes()).collect();
        let [picture] = &pictures[..] else { panic!("{} pictures", pictures.len()) };
        assert_eq!((picture.name, picture.width, picture.height), ("target", 6, 2));
        let rows: Vec<&[[u8; 3]]> = picture.rgb.as_chunks().0.chunks(6).collect();
        let (mean, above) = ([124, 116, 104], [182, 173, 161]);
        let (road, sidewalk, car) = ([128, 64, 128], [244, 35, 232], [0, 0, 142]);
        assert_eq!(rows[0], [mean, mean, road, [0; 3], [0; 3], [255; 3]]);
        assert_eq!(rows[1], [above, above, car, sidewalk, [127; 3], [51; 3]]);
        assert_eq!(image::load_from_memory(&picture.png().unwrap()).unwrap().width(), 6);
    }

    #[test]
    fn large_images_are_shown_smaller() {
        let (height, width) = (3, 2 * MAX_SIDE + 1);
        let pass = Pass {
            size: [1, height, width],
            pixels: vec![0.0; height * width * 3],
            labels: vec![0; height * width],
        };
        let picture = pass.picture("source", None, &Classes::cityscapes());
        // Three pixels become one.
        assert_eq!((picture.width, picture.height), (2 * width.div_ceil(3), 1));
        assert_eq!(picture.rgb.len(), 3 * picture.width * picture.height);
        assert!(
            picture.rgb[..3 * width.div_ceil(3)]
                .as_chunks()
                .0
                .iter()
                .all(|p| *p == [124, 116, 104])
        );
    }
}
