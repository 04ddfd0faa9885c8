//! Evaluation on a validation set.

use std::path::Path;
use std::time::Instant;

use super::inference::Predictor;
use super::metrics::Confusion;
use super::report::{Report, Validated};
use crate::Result;
use crate::data::classes::Classes;
use crate::data::eval::{EvalSample, EvalSet};
use crate::device::Device;
use crate::ops;

/// Measures a network on every image of `set`. `see` gets each image with its prediction (train
/// ids at the label's size); `advance`: images done, images in all.
pub fn evaluate(
    device: &Device,
    predictor: &Predictor,
    set: &EvalSet,
    classes: &Classes,
    advance: &dyn Fn(usize, usize),
    see: &mut dyn FnMut(&EvalSample, &[u8]) -> Result<()>,
) -> Result<Report> {
    let started = Instant::now();
    let mut confusion = ops::Confusion::new(device, classes.len())?;
    let mut data = Validated::default();
    for (done, sample) in set.iter()?.enumerate() {
        let sample = sample?;
        let size = sample.original();
        let folder = sample.file.parent().and_then(Path::file_name).unwrap_or_default();
        note(&mut data.sizes, [size.width, size.height]);
        note(&mut data.folders, folder.to_string_lossy().into_owned());
        let logits = predictor.logits(&sample.rgb, sample.fitted.width, sample.fitted.height)?;
        let prediction = predictor.classes(&logits, (size.height, size.width))?;
        let label = device.upload(&[1, size.height, size.width], &sample.label.data)?;
        confusion.add(&prediction, &label)?;
        see(&sample, &device.read::<u8>(&prediction)?)?;
        advance(done + 1, set.len());
    }
    let counts = confusion.read()?.pixels.into_iter().map(|n| n as u64).collect();
    Ok(Report {
        confusion: Confusion::from_counts(classes.len(), counts)?,
        classes: classes.clone(),
        config: String::new(),
        checkpoint: None,
        iteration: None,
        images: set.len(),
        data,
        configuration: None,
        training: None,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn note<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if !all.contains(&one) {
        all.push(one);
    }
}
