//! The images that a run has saved, small enough to be part of a page.

use std::io::Cursor;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageReader, Limits, RgbImage};

use crate::data::decode;
use crate::run::train::tensorboard::last_images;

/// Number of validation images that are shown.
const VALIDATION: usize = 8;
/// Wider images are shown smaller.
const MAX_WIDTH: u32 = 1200;
/// Sides and memory of an image of an event file, which a run writes much smaller.
const MAX_SIDE: u32 = 1 << 14;
const MAX_MEMORY: u64 = 256 << 20;

/// An image of a page.
pub struct Picture {
    /// What it shows.
    pub caption: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The image as a URI that holds it.
    pub uri: String,
}

/// Returns the images in a run's folder: validation images with prediction and label, and what the
/// network was last trained on. What cannot be read is left out.
pub fn of(folder: &Path) -> Vec<Picture> {
    let files = decode::listed(&[folder.join("pictures")]).unwrap_or_default();
    let validation = files.into_iter().take(VALIDATION).filter_map(|file| {
        let image = decode::load_rgb(&file).ok()?;
        let [width, height] = [image.size.width, image.size.height].map(|side| side as u32);
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let caption = format!("validation image {name}, prediction, label");
        picture(caption, RgbImage::from_raw(width, height, image.rgb)?)
    });
    let training = last_images(folder).into_iter().filter_map(|saved| {
        let mut reader = ImageReader::new(Cursor::new(saved.bytes)).with_guessed_format().ok()?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_MEMORY);
        reader.limits(limits);
        let image = reader.decode().ok()?.into_rgb8();
        let pass = saved.tag.rsplit('/').next().unwrap_or_default().replace('_', " ");
        let shown = if pass == "target" { "pseudo-labels, confidence" } else { "labels" };
        let caption = format!("{pass} images of iteration {}, {shown}", saved.step);
        picture(caption, image)
    });
    validation.chain(training).collect()
}

fn picture(caption: String, mut image: RgbImage) -> Option<Picture> {
    if image.width() > MAX_WIDTH {
        let height = u64::from(image.height()) * u64::from(MAX_WIDTH) / u64::from(image.width());
        image = image::imageops::thumbnail(&image, MAX_WIDTH, (height as u32).max(1));
    }
    let mut bytes = Vec::new();
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90)).ok()?;
    let uri = format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes));
    Some(Picture { caption, width: image.width(), height: image.height(), uri })
}
