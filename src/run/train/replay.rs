//! An iteration that failed, kept with its batch, and run again.

use std::path::Path;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::checkpoint::state as checkpoint;
use crate::checkpoint::tensor_file::{Entry, TensorFile};
use crate::config::Config;
use crate::data::{Batch, Crops, RareCrops};
use crate::run::build;
use crate::uda::inputs::StepInputs;
use crate::uda::step::Report;
use crate::{Error, Result};

/// Under this string a dump keeps what of its batch is no tensor.
pub const BATCH: &str = "batch";

/// All of a batch but its pixels.
#[derive(Deserialize, Serialize)]
struct Notes {
    size: usize,
    source: Domain,
    target: Domain,
    rare: Option<(Domain, [u8; 2])>,
}

#[derive(Deserialize, Serialize)]
struct Domain {
    batch: usize,
    extent: Vec<[u32; 2]>,
    files: Vec<std::path::PathBuf>,
}

/// A batch's pixels for a dump, and its other half as text.
pub fn entries(batch: &Batch) -> Result<(Vec<Entry<'_>>, String)> {
    let planes = |name: &str, crops: &'_ Crops| {
        [("rgb", 3, crops.rgb.clone()), ("label", 1, crops.label.clone())].map(
            |(plane, channels, bytes)| {
                let count = bytes.len() / (crops.size * crops.size * channels).max(1);
                bytes_entry(format!("batch.{name}.{plane}"), count, crops.size, channels, bytes)
            },
        )
    };
    let mut entries = Vec::new();
    entries.extend(planes("source", &batch.source));
    entries.extend(planes("target", &batch.target));
    entries.extend(batch.rare.iter().flat_map(|rare| planes("rare", &rare.crops)));
    let size = batch.source.size;
    let count = batch.valid.len() / (size * size).max(1);
    entries.push(bytes_entry("batch.valid".into(), count, size, 1, batch.valid.clone()));
    let domain = |crops: &Crops| Domain {
        batch: crops.batch,
        extent: crops.extent.clone(),
        files: crops.files.clone(),
    };
    let notes = Notes {
        size,
        source: domain(&batch.source),
        target: domain(&batch.target),
        rare: batch.rare.as_ref().map(|rare| (domain(&rare.crops), rare.classes)),
    };
    let text = serde_json::to_string(&notes)
        .map_err(|e| Error::config(format!("the batch cannot be described: {e}")))?;
    Ok((entries, text))
}

fn bytes_entry<'a>(
    name: String,
    count: usize,
    size: usize,
    channels: usize,
    bytes: Vec<u8>,
) -> Entry<'a> {
    let shape = vec![count, size, size, channels];
    Entry { name, dtype: Dtype::U8, shape, bytes: Box::new(move || Ok(bytes)) }
}

fn batch_of(file: &TensorFile, iteration: u64) -> Result<Batch> {
    let Some(text) = file.metadata(BATCH) else {
        let problem = "holds no iteration to replay: a run writes such a file when a number is not \
                       finite";
        return Err(Error::weights(file.path(), problem));
    };
    let notes: Notes = serde_json::from_str(text)
        .map_err(|e| Error::weights(file.path(), format!("its `{BATCH}`: {e}")))?;
    let bytes = |name: &str| file.exactly(&format!("batch.{name}"), Dtype::U8);
    let crops = |name: &str, domain: Domain| {
        Ok::<_, Error>(Crops {
            batch: domain.batch,
            size: notes.size,
            rgb: bytes(&format!("{name}.rgb"))?,
            label: bytes(&format!("{name}.label"))?,
            extent: domain.extent,
            files: domain.files,
        })
    };
    let rare = notes.rare.map(|(domain, classes)| {
        Ok::<_, Error>(RareCrops { classes, crops: crops("rare", domain)? })
    });
    Ok(Batch {
        iteration,
        source: crops("source", notes.source)?,
        target: crops("target", notes.target)?,
        valid: bytes("valid")?,
        rare: rare.transpose()?,
        skipped: Vec::new(),
    })
}

/// What an iteration did when it was run again.
pub struct Replayed {
    pub iteration: u64,
    pub report: Report,
    /// Intermediate results that are not finite, in the order in which they were computed.
    pub results: Vec<String>,
    /// Parameters whose gradients are not finite.
    pub gradients: Vec<String>,
}

/// Runs the iteration of a dump again, from the state before it and on its own batch; needs no data
/// set. `device`: another device.kind than the run's.
pub fn replay(path: &Path, device: Option<&str>) -> Result<Replayed> {
    let file = TensorFile::open(path)?;
    let text = file.metadata("config");
    let text = text.ok_or_else(|| Error::weights(path, "holds no configuration"))?;
    let mut config = Config::from_toml(text, &format!("configuration in {}", path.display()))?;
    if let Some(kind) = device {
        config.device.kind = kind.into();
    }
    let device = build::device(&config)?;
    let mut learner = build::learner(&config, &device, Some(&file))?;
    let iteration = checkpoint::load(&file, &mut learner)?.next;
    let batch = batch_of(&file, iteration)?;
    let on_device = learner.upload(&batch)?;
    let mut results = Vec::new();
    let mut probe = |name: &str, tensor: &crate::tensor::Tensor| {
        if tensor.dtype() == device.real() {
            let numbers = device.read_f32(tensor)?;
            results.extend(numbers.iter().any(|x| !x.is_finite()).then(|| name.to_owned()));
        }
        Ok(())
    };
    let inputs = StepInputs::draw(&config, iteration);
    let report = learner.step(&on_device, &inputs, Some(&mut probe))?;
    let mut gradients = Vec::new();
    let student = &learner.student;
    if let Some(grads) = &student.grads {
        for (index, param) in student.spec().params().iter().enumerate() {
            let numbers = student.export(&device, grads, index)?;
            gradients.extend(numbers.iter().any(|x| !x.is_finite()).then(|| param.name.clone()));
        }
    }
    Ok(Replayed { iteration, report, results, gradients })
}
