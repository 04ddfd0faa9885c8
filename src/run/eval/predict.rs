//! Predicts with a trained network, either single images or a whole split for Cityscapes'
//! evaluation server.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::images;
use super::inference::Predictor;
use super::submission::{self, LabelMap, Server};
use super::trained::Trained;
use crate::checkpoint::weights::Network;
use crate::checkpoint::{files, writer};
use crate::config::Config;
use crate::data::classes::Classes;
use crate::data::decode::{self, RgbImage, load_rgb};
use crate::data::layouts::{self, Split};
use crate::data::resize::{Size, Window, cv_bilinear};
use crate::memory::require;
use crate::observer::Observer;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The arguments of [`predict`].
#[derive(Clone, Copy, Debug)]
pub struct Prediction<'a> {
    /// A file, or a run's folder for its newest checkpoint.
    pub checkpoint: &'a Path,
    /// Which of the checkpoint's networks to use.
    pub weights: Network,
    /// The images to segment, and folders whose images to segment.
    pub images: &'a [PathBuf],
    /// The folder for the results.
    pub out: &'a Path,
    /// File for the logits; with several images, it ends up with those of the last one.
    pub logits: Option<&'a Path>,
    /// Size that images are scaled to before the network, instead of their own.
    pub resize: Option<Size>,
}

/// The arguments of [`submit`].
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// A file, or a run's folder for its newest checkpoint.
    pub checkpoint: &'a Path,
    /// Which of the checkpoint's networks to use.
    pub weights: Network,
    /// The file to write.
    pub zip: &'a Path,
    /// The split to segment.
    pub split: Split,
}

/// An image and its prediction.
struct Segmented {
    image: RgbImage,
    logits: Tensor,
    /// Train ids at the image's own size.
    ids: Vec<u8>,
}

/// Writes an overlay and a label map for every image and returns the paths of all files written.
///
/// # Errors
/// [`Error::Data`], before the first prediction, if a result would overwrite another result or an
/// input image.
pub fn predict(
    config: &Config,
    wanted: &Prediction,
    observer: &dyn Observer,
) -> Result<Vec<PathBuf>> {
    let images = decode::listed(wanted.images)?;
    let (folders, overlays) = places(wanted.out, &images)?;
    let file = files::open(wanted.checkpoint)?;
    let trained = Trained::load(config, &file, wanted.weights, observer)?;
    let predictor = trained.predictor(&config.eval);
    let classes = Classes::new(&config.dataset);
    let input = |own: Size| wanted.resize.unwrap_or(own);
    let mut written = Vec::new();
    let segmented = segment(&predictor, &images, input, observer);
    for (((segmented, path), folder), overlay) in segmented.zip(&images).zip(folders).zip(overlays)
    {
        let Segmented { image, logits, ids } = segmented?;
        if let Some(file) = wanted.logits {
            let numbers = trained.device().read_f32(&logits)?;
            writer::write_numbers(file, "logits", logits.shape().to_vec(), numbers)?;
            written.push(file.into());
        }
        let Size { width, height } = image.size;
        let shown = images::ImageView { width, height, rgb: &image.rgb };
        images::save_overlay(&overlay, shown, &ids, &classes)?;
        written.push(overlay);
        let label = images::save_label_ids(folder, path, width, height, &ids, &classes)?;
        written.push(label);
    }
    Ok(written)
}

/// Segments a split of Cityscapes, ACDC or Dark Zurich, with images scaled as for evaluation, and
/// writes the zip for the dataset's evaluation server.
///
/// # Errors
/// Before the first prediction, [`Error::Config`] if the target's layout has no server or the classes
/// are not Cityscapes', or [`Error::Data`] if the images' names are not.
pub fn submit(config: &Config, wanted: &Submission, observer: &dyn Observer) -> Result<()> {
    let layout = &config.target.layout;
    let Some(server) = Server::of(layout) else {
        return Err(Error::config(format!(
            "target.layout is `{layout}`, but only Cityscapes, ACDC and Dark Zurich have \
             evaluation servers"
        )));
    };
    if !Classes::new(&config.dataset).are_cityscapes() {
        return Err(Error::config(
            "[dataset] defines its own classes, but the evaluation servers expect those of \
             Cityscapes",
        ));
    }
    let images = layouts::find(layout)?.images(&config.target.root, wanted.split)?;
    let file = files::open(wanted.checkpoint)?;
    let trained = Trained::load(config, &file, wanted.weights, observer)?;
    let predictor = trained.predictor(&config.eval);
    let segmented = segment(&predictor, &images, |own| own.fitted(config.eval.resize), observer);
    let maps = segmented.map(|segmented| {
        let Segmented { image, ids, .. } = segmented?;
        Ok(LabelMap { width: image.size.width, height: image.size.height, ids })
    });
    submission::write(wanted.zip, server, &images, maps)
}

/// Segments images one after the other. `input` maps an image's size to the size that it is scaled
/// to before the network.
fn segment<'a>(
    predictor: &'a Predictor,
    images: &'a [PathBuf],
    input: impl Fn(Size) -> Size + 'a,
    observer: &'a dyn Observer,
) -> impl Iterator<Item = Result<Segmented>> + 'a {
    images.iter().enumerate().map(move |(done, path)| {
        let image = load_rgb(path)?;
        let (own, input) = (image.size, input(image.size));
        // Scaled and padded, and classes and an overlay of the image's own size.
        let needed = 6 * input.pixels() + 8 * own.pixels();
        let problem = || format!("{}: an image of {own}", path.display());
        predictor.with_advice(require(needed, problem))?;
        let scaled = cv_bilinear(image.rows(), input, Window::whole(input));
        let logits = predictor.logits(&scaled, input.width, input.height)?;
        let classes = predictor.classes(&logits, (own.height, own.width))?;
        let ids = predictor.device().read::<u8>(&classes)?;
        observer.advance(done + 1, images.len(), "");
        Ok(Segmented { image, logits, ids })
    })
}

/// Returns the folder of the results and the path of the overlay for every image. Images of one
/// name in several folders get folders of their own, below `out` as the images are below the folder
/// that they share.
///
/// # Errors
/// [`Error::Data`] if a result would overwrite another result or an input image.
fn places(out: &Path, all: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    // A missing image cannot be overwritten; loading it fails later.
    let real: Vec<PathBuf> =
        all.iter().map(|image| image.canonicalize().unwrap_or_else(|_| image.clone())).collect();
    let mut names = HashSet::new();
    let alike = all.iter().any(|image| !names.insert(image.file_name()));
    let shared = alike.then(|| shared_folder(&real)).flatten();
    let mut owners: HashMap<PathBuf, &PathBuf> = real.iter().cloned().zip(all).collect();
    let root = out.canonicalize().unwrap_or_else(|_| out.into());
    let (mut folders, mut overlays) = (Vec::new(), Vec::new());
    for (image, real) in all.iter().zip(&real) {
        let below = shared.as_ref().and_then(|shared| real.parent()?.strip_prefix(shared).ok());
        let below = below.unwrap_or(Path::new(""));
        // The results are named after it.
        let stem = image.file_stem().unwrap_or_default().to_str();
        let stem =
            stem.ok_or_else(|| Error::data(image, "this name is not UTF-8: rename the image"))?;
        let overlay = format!("{stem}_overlay.png");
        for name in [overlay.clone(), images::label_ids_name(image)] {
            if let Some(other) = owners.insert(root.join(below).join(&name), image) {
                let problem = format!(
                    "its {name} in {} would overwrite {}: choose another --out, or rename an image",
                    out.join(below).display(),
                    if other == image {
                        "itself".into()
                    } else {
                        format!("the one of {}", other.display())
                    }
                );
                return Err(Error::data(image, problem));
            }
        }
        folders.push(out.join(below));
        overlays.push(out.join(below).join(overlay));
    }
    Ok((folders, overlays))
}

/// Returns the innermost folder that holds all files.
fn shared_folder(files: &[PathBuf]) -> Option<PathBuf> {
    let (first, others) = files.split_first()?;
    let mut shared = first.parent()?.to_path_buf();
    for file in others {
        while !file.starts_with(&shared) {
            shared.pop();
        }
    }
    Some(shared)
}
