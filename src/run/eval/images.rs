//! Saves predictions as images: overlays, comparisons, and label maps for the evaluation server.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::data::classes::Classes;
use crate::error::{Error, Result};
use crate::file::atomic::write_atomic;

/// Opacity of the class colors in an overlay, from 0 to 1.
pub const OVERLAY: f32 = 0.6;

/// An RGB image and its size.
#[derive(Clone, Copy, Debug)]
pub struct ImageView<'a> {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The pixels: H,W,3 in RGB order.
    pub rgb: &'a [u8],
}

impl ImageView<'_> {
    fn check(&self, what: &str, ids: &[u8]) -> Result<()> {
        let pixels = self.width * self.height;
        if self.rgb.len() != 3 * pixels || ids.len() != pixels {
            let problem = format!(
                "a {}x{} image of {} bytes, {what} of {} pixels",
                self.width,
                self.height,
                self.rgb.len(),
                ids.len()
            );
            return Err(Error::shape("picture", problem));
        }
        Ok(())
    }
}

/// Converts train ids (H,W) to their classes' colors (H,W,3); ids without a class become black.
pub fn colors(ids: &[u8], classes: &Classes) -> Vec<u8> {
    ids.iter().flat_map(|&id| classes.color(id).unwrap_or_default()).collect()
}

/// Blends each pixel's class color over the image with opacity `alpha` (0 to 1) and returns H,W,3.
/// Pixels without a class are unchanged.
///
/// # Errors
/// [`Error::Shape`] if the image and the ids differ in size.
pub fn overlay(image: ImageView, ids: &[u8], classes: &Classes, alpha: f32) -> Result<Vec<u8>> {
    image.check("an overlay", ids)?;
    let blend = |below: u8, above: u8| {
        (f32::from(below) * (1.0 - alpha) + f32::from(above) * alpha).round() as u8
    };
    let mut out = image.rgb.to_vec();
    for (pixel, &id) in out.chunks_exact_mut(3).zip(ids) {
        if let Some(color) = classes.color(id) {
            pixel.iter_mut().zip(color).for_each(|(below, above)| *below = blend(*below, above));
        }
    }
    Ok(out)
}

/// Writes an overlay as a PNG.
///
/// # Errors
/// [`Error::Shape`] if the image and the ids differ in size; [`Error::Io`].
pub fn save_overlay(
    path: impl AsRef<Path>,
    image: ImageView,
    ids: &[u8],
    classes: &Classes,
) -> Result<()> {
    let rgb = overlay(image, ids, classes, OVERLAY)?;
    save_rgb(path, image.width, image.height, &rgb)
}

/// Writes the image, the prediction and the label, if given, side by side as a PNG.
///
/// # Errors
/// [`Error::Shape`] if the sizes differ; [`Error::Io`].
pub fn save_comparison(
    path: impl AsRef<Path>,
    image: ImageView,
    prediction: &[u8],
    label: Option<&[u8]>,
    classes: &Classes,
) -> Result<()> {
    image.check("a prediction", prediction)?;
    let mut panels = vec![image.rgb.to_vec(), colors(prediction, classes)];
    if let Some(label) = label {
        image.check("a label", label)?;
        panels.push(colors(label, classes));
    }
    let row = 3 * image.width;
    let mut rgb = Vec::with_capacity(row * panels.len() * image.height);
    for y in 0..image.height {
        panels.iter().for_each(|panel| rgb.extend_from_slice(&panel[y * row..(y + 1) * row]));
    }
    save_rgb(path, image.width * panels.len(), image.height, &rgb)
}

/// Converts train ids to label ids ([`Classes::label_id`]), writes them to `folder` as an 8-bit
/// grayscale PNG named by [`label_ids_name`], and returns its path.
///
/// # Errors
/// [`Error::Shape`] if `ids` does not have `width`·`height` elements; [`Error::Io`].
pub fn save_label_ids(
    folder: impl AsRef<Path>,
    image: impl AsRef<Path>,
    width: usize,
    height: usize,
    ids: &[u8],
    classes: &Classes,
) -> Result<PathBuf> {
    let path = folder.as_ref().join(label_ids_name(image.as_ref()));
    let label_ids: Vec<u8> = ids.iter().map(|&id| classes.label_id(id)).collect();
    let bytes = gray_png(width, height, &label_ids)?;
    write_atomic(&path, |file| file.write_all(&bytes))?;
    Ok(path)
}

/// Encodes a map of ids as an 8-bit grayscale PNG.
///
/// # Errors
/// [`Error::Shape`] if `ids` does not have `width`·`height` elements, or the size is too large for
/// a PNG.
pub fn gray_png(width: usize, height: usize, ids: &[u8]) -> Result<Vec<u8>> {
    let wrong = |problem| Error::shape("label map", problem);
    if ids.len() != width * height {
        return Err(wrong(format!("{} ids for {width}x{height} pixels", ids.len())));
    }
    let mut bytes = Vec::new();
    encode(&mut bytes, width, height, png::ColorType::Grayscale, ids)
        .map_err(|e| wrong(e.to_string()))?;
    Ok(bytes)
}

/// Encodes RGB pixels (H,W,3) as a PNG.
///
/// # Errors
/// [`Error::Shape`] if `rgb` does not have `3·width·height` bytes, or the size is too large for a
/// PNG.
pub fn rgb_png(width: usize, height: usize, rgb: &[u8]) -> Result<Vec<u8>> {
    check_rgb(width, height, rgb)?;
    let mut bytes = Vec::new();
    encode(&mut bytes, width, height, png::ColorType::Rgb, rgb)
        .map_err(|e| Error::shape("picture", e.to_string()))?;
    Ok(bytes)
}

/// Returns the file name for the label map of an image. Cityscapes' evaluation looks for
/// `<city>_<sequence>_<frame>*.png`, so `…_leftImg8bit.png` becomes `…_labelIds.png`. Any other
/// name keeps its stem.
pub fn label_ids_name(image: &Path) -> String {
    let stem = image.file_stem().unwrap_or_default().to_string_lossy();
    match stem.strip_suffix("_leftImg8bit") {
        Some(frame) => format!("{frame}_labelIds.png"),
        None => format!("{stem}.png"),
    }
}

/// Writes RGB pixels (H,W,3) as a PNG.
///
/// # Errors
/// [`Error::Shape`] if `rgb` does not have `3·width·height` bytes; [`Error::Io`].
pub fn save_rgb(path: impl AsRef<Path>, width: usize, height: usize, rgb: &[u8]) -> Result<()> {
    check_rgb(width, height, rgb)?;
    write_atomic(path, |file| encode(file, width, height, png::ColorType::Rgb, rgb))
}

fn check_rgb(width: usize, height: usize, rgb: &[u8]) -> Result<()> {
    if rgb.len() != 3 * width * height {
        let problem = format!("{} bytes for {width}x{height} pixels", rgb.len());
        return Err(Error::shape("picture", problem));
    }
    Ok(())
}

fn encode(
    to: impl Write,
    width: usize,
    height: usize,
    color: png::ColorType,
    data: &[u8],
) -> io::Result<()> {
    let side = |n: usize| u32::try_from(n).map_err(|_| io::Error::other("too large for a PNG"));
    let mut encoder = png::Encoder::new(to, side(width)?, side(height)?);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(data)?;
    Ok(writer.finish()?)
}
