//! Evaluation on a validation set.

use std::path::Path;
use std::time::Instant;

use super::inference::Predictor;
use super::memory::with_advice;
use super::metrics::Confusion;
use super::page::Worst;
use super::per_image::ImageResult;
use super::report::{Report, Subject, Validated};
use super::shared::{self, Seen};
use super::trained::Trained;
use crate::checkpoint::weights::Network;
use crate::checkpoint::{files, identity};
use crate::config::Config;
use crate::data::classes::Classes;
use crate::data::eval::{EvalSample, EvalSet};
use crate::observer::Observer;
use crate::ops;
use crate::{Error, Result};

/// Evaluates a checkpoint (a file, or the newest one in a run's folder) on the target's validation
/// images. `name` is the name of the configuration, as given by the user. `worst` collects the
/// images with the lowest IoU.
///
/// # Errors
/// [`Error::Weights`] if the checkpoint does not fit the network; [`Error::Data`] if an image or a
/// label is missing or malformed.
pub fn evaluate(
    config: &Config,
    name: &str,
    checkpoint: &Path,
    which: Network,
    observer: &dyn Observer,
    worst: &mut Worst,
) -> Result<Report> {
    let file = files::open(checkpoint)?;
    let trained = Trained::load(config, &file, which, observer)?;
    let set = EvalSet::new(&config.target, config.network.classes, config.eval.resize)?;
    set.note().into_iter().for_each(|note| observer.message(note));
    let subject = Subject {
        config: name.into(),
        checkpoint: Some(file.path().into()),
        iteration: identity::iteration(&file)?,
        training: file.metadata("config").and_then(|text| toml::from_str(text).ok()),
    };
    let predictor = trained.predictor(&config.eval);
    let see: See = &mut |sample, prediction, result| worst.see(sample, prediction, result);
    measure(config, subject, &predictor, &set, observer, see)
}

/// Receives each image with its prediction (train ids at the label's size) and the result.
pub type See<'a> = &'a mut dyn FnMut(&EvalSample, &[u8], &ImageResult) -> Result<()>;

/// Evaluates a network on every image of `set` and shows each to `see`. The processes of a group
/// share the images: each shows its own, and all return the same report but for the time.
///
/// # Errors
/// The first error of the dataset, the device or `see`, which ends the evaluation.
pub fn measure(
    config: &Config,
    subject: Subject,
    predictor: &Predictor,
    set: &EvalSet,
    observer: &dyn Observer,
    see: See,
) -> Result<Report> {
    let started = Instant::now();
    let (device, classes) = (predictor.device(), Classes::new(&config.dataset));
    let mut confusion = with_advice(ops::Confusion::new(device, classes.len()), &config.eval)?;
    let mut seen = Vec::new();
    let place = device.place();
    for (done, sample) in set.share(place.rank, place.size).iter()?.enumerate() {
        let sample = sample?;
        let size = sample.original();
        let logits = predictor.logits(&sample.rgb, sample.fitted.width, sample.fitted.height)?;
        let prediction = predictor.classes(&logits, (size.height, size.width))?;
        let label = device.upload(&[1, size.height, size.width], &sample.label.data);
        let counted = label.and_then(|label| confusion.add(&prediction, &label));
        with_advice(counted, &config.eval)?;
        let prediction = device.read::<u8>(&prediction)?;
        let mut counted = Confusion::new(classes.len());
        counted.add(&prediction, &sample.label.data)?;
        let result = ImageResult::new(sample.file.clone(), &counted);
        see(&sample, &prediction, &result)?;
        seen.push(Seen { size: [size.width, size.height], counted });
        observer.advance(((done + 1) * place.size).min(set.len()), set.len(), "");
    }
    let counts = confusion.read()?.pixels.into_iter().map(|n| n as u64).collect();
    let mut counts = Confusion::from_counts(classes.len(), counts)?;
    if place.size > 1 {
        counts = shared::total(device, &counts)?;
        seen = shared::images(device, &seen, classes.len())?;
    }
    let mut data = Validated::default();
    let mut per_image = Vec::with_capacity(seen.len());
    for (Seen { size, counted }, pair) in seen.into_iter().zip(set.pairs()) {
        let folder = pair.image.parent().and_then(Path::file_name).unwrap_or_default();
        note(&mut data.sizes, size);
        note(&mut data.folders, folder.to_string_lossy().into_owned());
        per_image.push(ImageResult::new(pair.image.clone(), &counted));
    }
    let configuration = serde_json::to_value(config)
        .map_err(|e| Error::config(format!("cannot serialize the configuration: {e}")))?;
    Ok(Report {
        subject,
        configuration,
        confusion: counts,
        classes,
        images: set.len(),
        per_image,
        data,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn note<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if !all.contains(&one) {
        all.push(one);
    }
}
