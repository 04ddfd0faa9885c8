//! Writes predictions in the formats of the datasets' evaluation servers: one zip of PNGs.
//!
//! Cityscapes: for every image of the split, the server looks anywhere in the zip for a file whose
//! name begins with the image's `<city>_<sequence>_<frame>`. It reads label ids (not train ids) at
//! the image's own size. Source: cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py,
//! `getPrediction`, which the server runs according to its authors; it looks in a folder `results`,
//! so the zip holds one.
//!
//! ACDC and Dark Zurich: train ids, named like the images, in a folder `labelTrainIds`. Source: MIC's
//! README, "Evaluation", and mmseg/datasets/cityscapes.py, `results2img`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::images::{gray_png, label_ids_name};
use crate::data::classes::Classes;
use crate::error::{Error, Result};
use crate::file::atomic::write_atomic;
use crate::file::zip::{StickyWriter, write_zip};

/// An evaluation server, which has a format of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Label ids, found by the images' names.
    Cityscapes,
    /// Train ids: ACDC and Dark Zurich.
    Adverse,
}

impl Server {
    /// Returns the server of a layout, if its dataset has one.
    pub fn of(layout: &str) -> Option<Server> {
        match layout {
            "cityscapes" => Some(Server::Cityscapes),
            "acdc" | "dark_zurich" => Some(Server::Adverse),
            _ => None,
        }
    }

    /// Returns the folder inside the zip.
    fn folder(self) -> &'static str {
        match self {
            Server::Cityscapes => "results",
            Server::Adverse => "labelTrainIds",
        }
    }

    /// Converts train ids to the ids that the server reads.
    fn ids(self, train_ids: Vec<u8>) -> Vec<u8> {
        match self {
            Server::Cityscapes => {
                let classes = Classes::cityscapes();
                train_ids.into_iter().map(|id| classes.label_id(id)).collect()
            }
            Server::Adverse => train_ids,
        }
    }

    /// Returns the name of an image's prediction.
    fn name(self, image: &Path) -> Result<String> {
        let wrong = |problem: &str| Err(Error::data(image, problem));
        match self {
            Server::Cityscapes if !is_cityscapes(image) => wrong(
                "Cityscapes names its images <city>_<sequence>_<frame>_leftImg8bit.png, and its \
                 server matches predictions by these names",
            ),
            Server::Adverse if !is_adverse(image) => wrong(
                "ACDC and Dark Zurich name their images <sequence>_frame_<frame>_rgb_anon.png, and \
                 their servers match predictions by these names",
            ),
            _ => Ok(label_ids_name(image)),
        }
    }
}

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

/// Writes a zip with the prediction for every image, in the format of a server; `predictions` must be in the order of
/// `images`. The zip appears at `path` only once it is complete. Equal predictions give identical
/// bytes.
///
/// # Errors
/// [`Error::Data`], before the first prediction is made, if an image is not named as in the dataset
/// or two have the same name; [`Error::Io`]; the error of a prediction.
pub fn write(
    path: &Path,
    server: Server,
    images: &[PathBuf],
    predictions: impl Iterator<Item = Result<LabelMap>>,
) -> Result<()> {
    let names = names(server, images)?;
    let mut failed = None;
    // PNGs are already compressed. No modification time is set, so the bytes are reproducible.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let fill = |zip: &mut ZipWriter<&mut StickyWriter>| {
        for (name, map) in names.into_iter().zip(predictions) {
            let png = map.and_then(|m| gray_png(m.width, m.height, &server.ids(m.ids)));
            let png = png.map_err(|e| {
                failed = Some(e);
                io::Error::other("a prediction failed")
            })?;
            zip.start_file(format!("{}/{name}", server.folder()), options)?;
            zip.write_all(&png)?;
        }
        Ok(())
    };
    let written = write_atomic(path, |file| write_zip(file, fill));
    failed.map_or(written, Err)
}

/// Returns the file name for the prediction of every image.
fn names(server: Server, images: &[PathBuf]) -> Result<Vec<String>> {
    let mut owners: HashMap<String, &PathBuf> = HashMap::new();
    let mut names = Vec::with_capacity(images.len());
    for image in images {
        let name = server.name(image)?;
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

fn is_adverse(image: &Path) -> bool {
    let name = image.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_suffix("_rgb_anon.png")).is_some_and(|frame| !frame.is_empty())
}
