//! Where the commands meet the library.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use udass_raw::config::{Config, EvalConfig, FILES};
use udass_raw::data::classes::Classes;
use udass_raw::data::eval::EvalSet;
use udass_raw::data::layouts::{self, Files};
use udass_raw::data::picture::load_rgb;
use udass_raw::data::prepare as preparation;
use udass_raw::data::resize::{Size as Pixels, Window, cv_bilinear};
use udass_raw::data::toy::ToyWorld;
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::Weights;
use udass_raw::run::evaluate::evaluate as measure;
use udass_raw::run::inference::Predictor;
use udass_raw::run::report::Report;
use udass_raw::run::{build, checkpoint, pictures, tensor_file};

use super::size::Size;

/// What `predict` is asked for.
#[derive(Clone, Debug)]
pub struct Prediction<'a> {
    pub checkpoint: &'a Path,
    pub images: &'a [PathBuf],
    /// Folder of the pictures.
    pub out: &'a Path,
    /// Where the logits of the one image go.
    pub logits: Option<&'a Path>,
    /// Size of the network's input, instead of the image's own.
    pub resize: Option<Size>,
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
    fn new(config: &Config, path: &Path) -> anyhow::Result<Loaded> {
        let device = build::device(config)?;
        let (network, weights) = build::trained(config, &device, path)?;
        Ok(Loaded { device, network, weights })
    }

    fn predictor<'a>(&'a self, config: &'a EvalConfig) -> anyhow::Result<Predictor<'a>> {
        Ok(Predictor::new(&self.device, &self.network, &self.weights, config)?)
    }
}

pub fn evaluate(config: &Config, path: &Path, advance: Advance) -> anyhow::Result<Report> {
    let file = checkpoint::resolve(path)?;
    let loaded = Loaded::new(config, &file)?;
    let set = EvalSet::new(&config.target, config.network.classes, config.eval.fit)?;
    let predictor = loaded.predictor(&config.eval)?;
    let classes = Classes::new(&config.dataset);
    let mut report =
        measure(&loaded.device, &predictor, &set, &classes, advance, &mut |_, _| Ok(()))?;
    report.iteration = tensor_file::TensorFile::open(&file)?
        .metadata("iteration")
        .and_then(|number| number.parse().ok());
    report.checkpoint = Some(file);
    Ok(report)
}

/// The files written.
pub fn predict(
    config: &Config,
    wanted: &Prediction,
    advance: Advance,
) -> anyhow::Result<Vec<PathBuf>> {
    let outputs = outputs(wanted)?;
    let loaded = Loaded::new(config, wanted.checkpoint)?;
    let predictor = loaded.predictor(&config.eval)?;
    let names = Classes::new(&config.dataset);
    let mut files = Vec::new();
    for (done, (path, overlay)) in wanted.images.iter().zip(outputs).enumerate() {
        let picture = load_rgb(path)?;
        let Pixels { width, height } = picture.size;
        let input = wanted
            .resize
            .map_or(picture.size, |size| Pixels { width: size.width, height: size.height });
        let resized = cv_bilinear(picture.rows(), input, Window::whole(input));
        let logits = predictor.logits(&resized, input.width, input.height)?;
        if let Some(file) = wanted.logits {
            let shape = logits.shape().to_vec();
            let numbers = loaded.device.read_f32(&logits)?;
            tensor_file::write_numbers(file, "logits", shape, numbers)?;
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
