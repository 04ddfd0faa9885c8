//! Where the commands meet the library.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::{files, identity, writer};
use udass_raw::config::{Config, EvalConfig, FILES};
use udass_raw::data::classes::Classes;
use udass_raw::data::eval::EvalSet;
use udass_raw::data::layouts::{self, Files, Split};
use udass_raw::data::picture::{Picture, load_rgb};
use udass_raw::data::prepare as preparation;
use udass_raw::data::resize::{Size as Pixels, Window, cv_bilinear};
use udass_raw::data::toy::ToyWorld;
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::Weights;
use udass_raw::run::build;
use udass_raw::run::eval::evaluate::evaluate as measure;
use udass_raw::run::eval::inference::Predictor;
use udass_raw::run::eval::report::Report;
use udass_raw::run::eval::{images as pictures, submission};
use udass_raw::tensor::Tensor;

use super::configured::Which;
use super::size::Size;
use super::tell;

/// What `predict` is asked for.
#[derive(Clone, Debug)]
pub struct Prediction<'a> {
    pub checkpoint: &'a Path,
    pub weights: Which,
    pub images: &'a [PathBuf],
    /// Folder of the pictures.
    pub out: &'a Path,
    /// Where the logits of the one image go.
    pub logits: Option<&'a Path>,
    /// Size of the network's input, instead of the image's own.
    pub resize: Option<Size>,
}

/// What `predict --submission` is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    pub checkpoint: &'a Path,
    /// The zip.
    pub zip: &'a Path,
    pub split: Split,
}

/// Steps done, steps in all.
pub type Advance<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A trained network on its device.
struct Loaded {
    device: Device,
    network: Segmentor,
    weights: Weights,
}

impl Loaded {
    fn new(config: &Config, file: &TensorFile, which: Which) -> anyhow::Result<Loaded> {
        let device = build::device(config)?;
        let (network, weights) = build::trained(config, &device, file, which.network())?;
        if let Some(note) = file.skipped_note() {
            tell(&note);
        }
        Ok(Loaded { device, network, weights })
    }

    fn predictor<'a>(&'a self, config: &'a EvalConfig) -> anyhow::Result<Predictor<'a>> {
        Ok(Predictor::new(&self.device, &self.network, &self.weights, config)?)
    }
}

pub fn evaluate(
    config: &Config,
    path: &Path,
    which: Which,
    advance: Advance,
) -> anyhow::Result<Report> {
    let file = files::open(path)?;
    let loaded = Loaded::new(config, &file, which)?;
    let set = EvalSet::new(&config.target, config.network.classes, config.eval.fit)?;
    let predictor = loaded.predictor(&config.eval)?;
    let classes = Classes::new(&config.dataset);
    let mut report =
        measure(&loaded.device, &predictor, &set, &classes, advance, &mut |_, _| Ok(()))?;
    report.iteration = identity::iteration(&file)?;
    report.training = file.metadata("config").and_then(|text| toml::from_str(text).ok());
    report.configuration = Some(serde_json::to_value(config)?);
    report.checkpoint = Some(file.path().into());
    Ok(report)
}

/// The files written.
pub fn predict(
    config: &Config,
    wanted: &Prediction,
    advance: Advance,
) -> anyhow::Result<Vec<PathBuf>> {
    let outputs = outputs(wanted)?;
    let file = files::open(wanted.checkpoint)?;
    let loaded = Loaded::new(config, &file, wanted.weights)?;
    let predictor = loaded.predictor(&config.eval)?;
    let names = Classes::new(&config.dataset);
    let mut files = Vec::new();
    for (done, (path, overlay)) in wanted.images.iter().zip(outputs).enumerate() {
        let picture = load_rgb(path)?;
        let Pixels { width, height } = picture.size;
        let input = wanted
            .resize
            .map_or(picture.size, |size| Pixels { width: size.width, height: size.height });
        let logits = logits(&predictor, &picture, input)?;
        if let Some(file) = wanted.logits {
            let shape = logits.shape().to_vec();
            let numbers = loaded.device.read_f32(&logits)?;
            writer::write_numbers(file, "logits", shape, numbers)?;
            files.push(file.into());
        }
        let classes = predictor.classes(&logits, (height, width))?;
        let ids = loaded.device.read::<u8>(&classes)?;
        let shown = pictures::Picture { width, height, rgb: &picture.rgb };
        pictures::save_overlay(&overlay, shown, &ids, &names)?;
        files.push(overlay);
        let label = pictures::save_label_ids(wanted.out, path, width, height, &ids, &names)?;
        files.push(label);
        advance(done + 1, wanted.images.len());
    }
    Ok(files)
}

/// The logits of a picture that is scaled to `input` before the network.
fn logits(predictor: &Predictor, picture: &Picture, input: Pixels) -> udass_raw::Result<Tensor> {
    let resized = cv_bilinear(picture.rows(), input, Window::whole(input));
    predictor.logits(&resized, input.width, input.height)
}

/// Segments a split of Cityscapes, as `evaluate` does, into a zip for its evaluation server.
pub fn submit(config: &Config, wanted: &Submission, advance: Advance) -> anyhow::Result<()> {
    let layout = &config.target.layout;
    anyhow::ensure!(
        layout == "cityscapes",
        "target.layout: `{layout}`, but the evaluation server takes predictions of Cityscapes"
    );
    anyhow::ensure!(
        Classes::new(&config.dataset).are_cityscapes(),
        "[dataset] names classes of its own, but the evaluation server takes those of Cityscapes"
    );
    let images = layouts::find(layout)?.images(&config.target.root, wanted.split)?;
    let loaded = Loaded::new(config, &files::open(wanted.checkpoint)?, Which::Student)?;
    let predictor = loaded.predictor(&config.eval)?;
    let mut done = 0;
    submission::write(wanted.zip, &images, |path| {
        let picture = load_rgb(path)?;
        let Pixels { width, height } = picture.size;
        let logits = logits(&predictor, &picture, picture.size.fitted(config.eval.fit))?;
        let classes = predictor.classes(&logits, (height, width))?;
        let ids = loaded.device.read::<u8>(&classes)?;
        done += 1;
        advance(done, images.len());
        Ok(submission::LabelMap { width, height, ids })
    })?;
    Ok(())
}

/// The overlay's path for every image.
///
/// # Errors
/// One picture would take the place of another, or of an image.
fn outputs(wanted: &Prediction) -> anyhow::Result<Vec<PathBuf>> {
    let (mut overlays, mut owners) = (Vec::new(), HashMap::new());
    // A file that is not there is nobody's image.
    for image in wanted.images {
        owners.extend(image.canonicalize().map(|file| (file, image)));
    }
    let folder = wanted.out.canonicalize().unwrap_or_else(|_| wanted.out.into());
    for image in wanted.images {
        let stem = image.file_stem().unwrap_or_default().to_string_lossy();
        let overlay = format!("{stem}_overlay.png");
        for name in [overlay.clone(), pictures::label_ids_name(image)] {
            if let Some(other) = owners.insert(folder.join(&name), image) {
                anyhow::bail!(
                    "{}: its {name} in {} would take the place of one that belongs to {}: \
                     choose another --out",
                    image.display(),
                    wanted.out.display(),
                    other.display()
                );
            }
        }
        overlays.push(wanted.out.join(overlay));
    }
    Ok(overlays)
}

/// `place`: the data set's folder, or the configuration that describes it.
pub fn prepare(layout: &str, place: &Path, advance: Advance) -> anyhow::Result<()> {
    if layout != FILES {
        preparation::prepare(layouts::find(layout)?, place, advance)?;
        return Ok(());
    }
    let config = Config::load(&place.display().to_string(), &[])?;
    let (domain, classes) = (&config.source, config.network.classes);
    anyhow::ensure!(
        domain.layout == FILES,
        "{}: source.layout is \"{}\": `udass-raw prepare {} {}` prepares it",
        place.display(),
        domain.layout,
        domain.layout,
        domain.root.display()
    );
    preparation::prepare(&Files::new(&domain.files, classes)?, &domain.root, advance)?;
    Ok(())
}

/// Draws a toy world and prepares it, as downloaded data is.
pub fn toy(dir: &Path, world: &ToyWorld, advance: Advance) -> anyhow::Result<()> {
    world.write(dir, advance)?;
    let own = ["gta", "synthia", "cityscapes"].map(|name| (name, name));
    for (layout, folder) in own.into_iter().chain([("gta", "gta_val")]) {
        preparation::prepare(layouts::find(layout)?, &dir.join(folder), &|_, _| {})?;
    }
    Ok(())
}
