//! Writes predictions in the format of Cityscapes' evaluation server: one zip of label-id PNGs.
//!
//! For every image of the split, the server looks anywhere in the zip for a file whose name begins
//! with the image's `<city>_<sequence>_<frame>`. It reads label ids (not train ids) at the image's
//! own size. Source: cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py,
//! `getPrediction`, which the server runs according to its authors; it looks in a folder `results`,
//! so the zip holds one.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::images::{label_ids_name, label_ids_png};
use crate::checkpoint::atomic::write_atomic;
use crate::data::classes::Classes;
use crate::error::{Error, Result};

/// The folder inside the zip.
const FOLDER: &str = "results";

/// A predicted label map.
#[derive(Clone, Debug)]
pub struct LabelMap {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Train ids: H,W.
    pub ids: Vec<u8>,
}

/// Writes a zip with the prediction for every image; `predictions` must be in the order of
/// `images`. The zip appears at `path` only once it is complete. Equal predictions give identical
/// bytes.
///
/// # Errors
/// [`Error::Data`], before the first prediction is made, if an image is not named
/// `<city>_<sequence>_<frame>_leftImg8bit.png` or two have the same name; [`Error::Io`]; the error
/// of a prediction.
pub fn write(
    path: &Path,
    images: &[PathBuf],
    predictions: impl Iterator<Item = Result<LabelMap>>,
) -> Result<()> {
    let names = names(images)?;
    let classes = Classes::cityscapes();
    let mut failed = None;
    let written = write_atomic(path, |file| {
        let mut zip = ZipWriter::new(file);
        // PNGs are already compressed. No modification time is set, so the bytes are reproducible.
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, map) in names.into_iter().zip(predictions) {
            let png = map.and_then(|m| label_ids_png(m.width, m.height, &m.ids, &classes));
            let png = png.map_err(|e| {
                failed = Some(e);
                io::Error::other("a prediction failed")
            })?;
            zip.start_file(format!("{FOLDER}/{name}"), options)?;
            zip.write_all(&png)?;
        }
        zip.finish()?;
        Ok(())
    });
    failed.map_or(written, Err)
}

/// Returns the file name for the prediction of every image.
fn names(images: &[PathBuf]) -> Result<Vec<String>> {
    let mut owners: HashMap<String, &PathBuf> = HashMap::new();
    let mut names = Vec::with_capacity(images.len());
    for image in images {
        if !is_cityscapes(image) {
            let problem = "Cityscapes names its images <city>_<sequence>_<frame>_leftImg8bit.png, \
                           and its server matches predictions by these names";
            return Err(Error::data(image, problem));
        }
        let name = label_ids_name(image);
        if let Some(other) = owners.insert(name.clone(), image) {
            let problem = format!(
                "has the same name as {}, but the server accepts each name once",
                other.display()
            );
            return Err(Error::data(image, problem));
        }
        names.push(name);
    }
    Ok(names)
}

fn is_cityscapes(image: &Path) -> bool {
    let name = image.file_name().and_then(|name| name.to_str());
    let Some(frame) = name.and_then(|name| name.strip_suffix("_leftImg8bit.png")) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = frame.split('_').collect();
    matches!(parts[..], [city, sequence, number]
        if !city.is_empty() && digits(sequence) && digits(number))
}
