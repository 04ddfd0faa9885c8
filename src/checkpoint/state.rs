//! Checkpoints: the complete state of a run in one safetensors file, with the reference's names and
//! shapes.
//!
//! | tensors | |
//! | --- | --- |
//! | `model.*` | the student's parameters and buffers |
//! | `ema_model.*` | the teacher's parameters and buffers |
//! | `optimizer.exp_avg.*`, `optimizer.exp_avg_sq.*` | AdamW's moments |
//! | `templates.*` | the last iteration's images, B,H,W,C |
//! | `contrast.*` | mean, variance and number of features of each class, and the bank |
//!
//! The teacher's update is fused with the student's, so the teacher is one update ahead of the
//! reference's, which averages at the start of an iteration.
//!
//! The metadata strings are `iteration` (the next one), `optimizer.first` (the iteration of the
//! first update that the moments hold), `templates.iteration`, `skipped` (files that could not be
//! read), `config`, `run` (a digest that identifies the run), `data` (a summary of the files that it
//! trains on), `format` and `version`. A dump for a replay also holds the next batch, `batch.*`. No
//! RNG state is stored, because every random number is a hash of seed and iteration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::de::DeserializeOwned;

use super::batch;
use super::identity;
use super::moments::{self, MOMENTS, first_update};
use super::tensor_file::TensorFile;
use super::weights::{Network, is_count, load_network, network_prefix};
use super::writer::{self, Entry};
use crate::data::Batch;
use crate::device::Device;
use crate::params::{ParamSpec, Weights};
use crate::tensor::{DType, Tensor};
use crate::uda::state::TrainingState;
use crate::{Error, Result};

/// The progress of a run, which its [`TrainingState`] does not hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// The next iteration.
    pub next: u64,
    /// Files that could not be read so far.
    pub skipped: BTreeSet<PathBuf>,
    /// Identifies the run: a digest of all that its results depend on.
    pub run: String,
    /// Summary of the files that the run trains on; empty if it is not known.
    pub data: BTreeMap<String, (usize, String)>,
}

/// Writes the state at `position` atomically. For a replay, `batch` is the batch of the next
/// iteration. All processes of a group call this, and the first one writes the file, which does not
/// depend on their number.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; [`Error::Device`] if a tensor cannot be read back.
pub fn save(
    path: &Path,
    training: &mut TrainingState,
    position: &Position,
    batch: Option<&Batch>,
) -> Result<()> {
    let templates = training.templates.gathered(&training.device)?;
    if !training.device.place().leads() {
        return Ok(());
    }
    let skipped = serde_json::to_string(&position.skipped).map_err(|e| {
        Error::weights(path, format!("cannot serialize the list of skipped files: {e}"))
    })?;
    let data = serde_json::to_string(&position.data)
        .map_err(|e| Error::weights(path, format!("cannot serialize the data's summary: {e}")))?;
    let mut metadata = BTreeMap::from([
        ("format".to_string(), "udass-raw checkpoint 2".to_string()),
        ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("iteration".to_string(), position.next.to_string()),
        ("skipped".to_string(), skipped),
        (identity::RUN.to_string(), position.run.clone()),
        ("data".to_string(), data),
        ("optimizer.first".to_string(), training.optimizer.first.to_string()),
        ("config".to_string(), training.config.to_toml()?),
        (
            "templates.iteration".to_string(),
            training.templates.iteration.map_or(String::new(), |i| i.to_string()),
        ),
    ]);
    let mut entries = entries(training, templates);
    if let Some(batch) = batch {
        let (pixels, notes) = batch::entries(batch)?;
        entries.extend(pixels);
        metadata.insert(batch::KEY.into(), notes);
    }
    writer::write(path, entries, metadata)
}

/// Returns the size of a checkpoint's tensors, in bytes.
pub fn bytes(training: &mut TrainingState) -> Result<usize> {
    let templates = training.templates.gathered(&training.device)?;
    Ok(entries(training, templates).iter().map(Entry::len).sum())
}

/// Returns the tensors of a checkpoint, with the templates of all processes.
fn entries<'a>(
    training: &'a mut TrainingState,
    mut others: Vec<(&'static str, Tensor)>,
) -> Vec<Entry<'a>> {
    let contrast = training.contrast.iter_mut().flat_map(|contrast| contrast.kept.named());
    others.extend(contrast.map(|(name, tensor)| (name, tensor.clone())));
    let training = &*training;
    let device = &training.device;
    let mut entries = network_entries(device, &training.student, Network::Student.prefix());
    if let Some(teacher) = &training.teacher {
        entries.extend(network_entries(device, teacher, Network::Teacher.prefix()));
    }
    let optimizer = &training.optimizer;
    for (prefix, flat) in MOMENTS.into_iter().zip([&optimizer.exp_avg, &optimizer.exp_avg_sq]) {
        entries.extend(param_entries(device, &training.student, flat, prefix));
    }
    for (name, tensor) in others.into_iter().filter(|(_, tensor)| !tensor.is_empty()) {
        let dtype = match tensor.dtype() {
            DType::U8 => Dtype::U8,
            DType::I64 => Dtype::I64,
            _ => Dtype::F32,
        };
        entries.push(Entry {
            name: name.into(),
            dtype,
            shape: tensor.shape().into(),
            bytes: Box::new(move || match dtype {
                Dtype::U8 => device.read::<u8>(&tensor),
                Dtype::I64 => Ok(bytemuck::cast_slice(&device.read::<i64>(&tensor)?).to_vec()),
                _ => Ok(bytemuck::cast_slice(&device.read_f32(&tensor)?).to_vec()),
            }),
        });
    }
    entries
}

/// Returns the next iteration of a run's checkpoint.
///
/// # Errors
/// [`Error::Weights`] if the file is none.
pub fn next_iteration(file: &TensorFile) -> Result<u64> {
    let number = file.metadata("iteration").is_some_and(|text| text.parse::<u64>().is_ok());
    let next = if number { identity::iteration(file)? } else { None };
    next.ok_or_else(|| {
        let problem = "is not a checkpoint of a run, so it cannot be resumed (--checkpoint starts \
                       a new run from weights)";
        Error::weights(file.path(), problem)
    })
}

/// Returns the position of a run in its checkpoint.
///
/// # Errors
/// [`Error::Weights`] if the file is not a run's checkpoint, or its metadata is malformed.
pub fn position(file: &TensorFile) -> Result<Position> {
    fn json<T: DeserializeOwned + Default>(file: &TensorFile, key: &str) -> Result<T> {
        // Earlier versions did not write every key.
        file.metadata(key).map_or(Ok(T::default()), |text| {
            serde_json::from_str(text)
                .map_err(|e| Error::weights(file.path(), format!("its `{key}`: {e}")))
        })
    }
    let next = next_iteration(file)?;
    let run = file.metadata(identity::RUN).unwrap_or_default().into();
    Ok(Position { next, skipped: json(file, "skipped")?, run, data: json(file, "data")? })
}

/// Returns the iteration of a checkpoint's templates, if they hold one's images.
fn templates_iteration(file: &TensorFile, next: u64) -> Result<Option<u64>> {
    let iteration = file.metadata("templates.iteration").and_then(|text| text.parse().ok());
    match iteration {
        Some(iteration) if iteration >= next => {
            let problem =
                format!("its templates.iteration is {iteration}, but its iteration is {next}");
            Err(Error::weights(file.path(), problem))
        }
        iteration => Ok(iteration),
    }
}

/// Restores the state that [`save`] wrote and returns the run's position.
///
/// # Errors
/// [`Error::Weights`] if the file is not a run's checkpoint or does not fit the configuration.
pub fn load(file: &TensorFile, training: &mut TrainingState) -> Result<Position> {
    let path = file.path();
    // These checks are cheap, so they come before any tensor is loaded.
    let position = position(file)?;
    let first = first_update(file)?;
    let of_templates = templates_iteration(file, position.next)?;
    let device = training.device.clone();
    load_network(file, &device, &mut training.student, Network::Student)?;
    if let Some(teacher) = &mut training.teacher {
        load_network(file, &device, teacher, Network::Teacher)?;
    }
    if !load_moments(file, training)? {
        return Err(Error::weights(path, format!("holds no tensor `{}…`", MOMENTS[0])));
    }
    training.optimizer.first = first;
    let slots = training.slots();
    training.templates.iteration = of_templates;
    if training.templates.iteration.is_some() {
        for (name, tensor) in training.templates.named() {
            if tensor.is_empty() {
                continue;
            }
            let shape = [&[slots.all], &tensor.shape()[1..]].concat();
            check(file, name, &shape)?;
            let image = tensor.len() / slots.count;
            let own = slots.first * image..(slots.first + slots.count) * image;
            match tensor.dtype() {
                DType::U8 => device.write(tensor, &file.exactly(name, Dtype::U8)?[own])?,
                _ => device.write_real(tensor, &file.numbers(name)?[own])?,
            }
        }
    }
    for (name, tensor) in training.contrast.iter_mut().flat_map(|contrast| contrast.kept.named()) {
        if tensor.is_empty() {
            continue;
        }
        check(file, name, tensor.shape())?;
        match tensor.dtype() {
            DType::I64 => {
                let counts = file.exactly(name, Dtype::I64)?;
                let counts: Vec<i64> =
                    (counts.as_chunks().0.iter()).map(|bytes| i64::from_le_bytes(*bytes)).collect();
                if counts.iter().any(|&n| n < 0) {
                    return Err(Error::weights(path, format!("its `{name}` counts below 0")));
                }
                device.write(tensor, &counts)?;
            }
            _ => device.write_real(tensor, &file.numbers(name)?)?,
        }
    }
    Ok(position)
}

/// Loads AdamW's moments from a checkpoint of this program or of the reference. Returns false if
/// the file has none.
///
/// # Errors
/// [`Error::Weights`] if a moment is missing or has the wrong shape.
pub fn load_moments(file: &TensorFile, training: &mut TrainingState) -> Result<bool> {
    let prefix = network_prefix(file, Network::Student)?;
    let Some(names) = moments::names(file, prefix) else { return Ok(false) };
    let device = training.device.clone();
    let TrainingState { optimizer, student, .. } = training;
    for (which, flat) in [&mut optimizer.exp_avg, &mut optimizer.exp_avg_sq].into_iter().enumerate()
    {
        student.load_flat(&device, flat, |param| {
            let name = names.get(&param.name).map(|names| names[which].as_str());
            let name = name.unwrap_or(&param.name);
            check(file, name, &param.shape)?;
            file.numbers(name).map(Some)
        })?;
    }
    Ok(true)
}

fn check(file: &TensorFile, name: &str, wanted: &[usize]) -> Result<()> {
    let problem = match file.find(name) {
        Some(info) if info.shape == wanted => return Ok(()),
        Some(info) => {
            format!(
                "tensor `{name}` has shape {:?}, but this configuration needs {wanted:?}",
                info.shape
            )
        }
        None => format!("tensor `{name}` is missing"),
    };
    Err(Error::weights(file.path(), problem))
}

/// Continues training from a checkpoint of another run or program. The `training` must already have
/// the checkpoint's student. This loads the moments, unless `iteration` is 0, and the teacher's
/// buffers, and copies the teacher's parameters from the student, as the released code does. The
/// bias correction counts the updates that the moments hold. Returns false if the moments were
/// wanted but the file has none.
///
/// # Errors
/// [`Error::Weights`] if the teacher or the moments do not fit the configuration.
pub fn begin(file: &TensorFile, training: &mut TrainingState, iteration: u64) -> Result<bool> {
    let device = training.device.clone();
    if let Some(teacher) = &mut training.teacher
        && network_prefix(file, Network::Teacher).is_ok()
    {
        // The teacher keeps its own batch-norm statistics from the file.
        load_network(file, &device, teacher, Network::Teacher)?;
        teacher.copy_values(&device, &training.student)?;
    }
    let loaded = iteration > 0 && load_moments(file, training)?;
    let updates = match loaded {
        true => identity::iteration(file)?.map_or(0, |next| next as i64) - first_update(file)?,
        false => 0,
    };
    training.optimizer.first = iteration as i64 - updates;
    Ok(loaded || iteration == 0)
}

/// Returns an entry for every parameter and buffer of one network.
fn network_entries<'a>(device: &'a Device, weights: &'a Weights, prefix: &str) -> Vec<Entry<'a>> {
    let mut entries = param_entries(device, weights, &weights.values, prefix);
    for (index, buffer) in weights.spec().buffers().iter().enumerate() {
        // PyTorch stores `num_batches_tracked` as an int64 scalar.
        let counts = is_count(&buffer.name);
        entries.push(Entry {
            name: format!("{prefix}{}", buffer.name),
            dtype: if counts { Dtype::I64 } else { Dtype::F32 },
            shape: buffer.shape.clone(),
            bytes: Box::new(move || {
                let values = weights.export_buffer(device, index)?;
                Ok(if counts {
                    values.iter().flat_map(|&x| (x as i64).to_le_bytes()).collect()
                } else {
                    bytemuck::cast_slice(&values).to_vec()
                })
            }),
        });
    }
    entries
}

/// Returns an entry for every parameter, read from a flat buffer with the layout of the parameters.
fn param_entries<'a>(
    device: &'a Device,
    weights: &'a Weights,
    flat: &'a Tensor,
    prefix: &str,
) -> Vec<Entry<'a>> {
    let entry = |(index, param): (usize, &ParamSpec)| Entry {
        name: format!("{prefix}{}", param.name),
        dtype: Dtype::F32,
        shape: param.shape.clone(),
        bytes: Box::new(move || {
            Ok(bytemuck::cast_slice(&weights.export(device, flat, index)?).to_vec())
        }),
    };
    weights.spec().params().iter().enumerate().map(entry).collect()
}
