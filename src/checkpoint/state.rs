//! Checkpoints: the whole state of a run in one safetensors file, in the reference's names and
//! shapes.
//!
//! | tensors | |
//! | --- | --- |
//! | `model.*` | the student's parameters and buffers |
//! | `ema_model.*` | the teacher's. Its update is part of the student's, so it is one update ahead of the reference's, which averages when an iteration begins |
//! | `optimizer.exp_avg.*`, `optimizer.exp_avg_sq.*` | AdamW's moments |
//! | `templates.*` | the last iteration's images, B,H,W,C |
//!
//! Beside them, as strings: `iteration` (the next one), `templates.iteration`, `skipped` (files that
//! could not be read), `version`, `config`. A dump for a replay has the next batch too, `batch.*`.
//! There is no random state: every draw is a hash of seed and iteration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::batch;
use super::moments::{self, MOMENTS};
use super::tensor_file::TensorFile;
use super::weights::{Network, is_count, load_network, network_prefix};
use super::writer::{self, Entry};
use crate::data::Batch;
use crate::device::Device;
use crate::params::{ParamSpec, Weights};
use crate::tensor::{DType, Tensor};
use crate::uda::state::Learner;
use crate::{Error, Result};

/// Where a run stands, beside what its learner holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// The next iteration.
    pub next: u64,
    /// Files that could not be read so far.
    pub skipped: BTreeSet<PathBuf>,
}

/// Writes the state at `position`; the file is there whole or not at all. `batch`: that of the next
/// iteration, for a replay.
pub fn save(
    path: &Path,
    learner: &mut Learner,
    position: &Position,
    batch: Option<&Batch>,
) -> Result<()> {
    let skipped = serde_json::to_string(&position.skipped)
        .map_err(|e| Error::weights(path, format!("cannot list the skipped files: {e}")))?;
    let mut metadata = BTreeMap::from([
        ("format".to_string(), "udass-raw checkpoint 1".to_string()),
        ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("iteration".to_string(), position.next.to_string()),
        ("skipped".to_string(), skipped),
        ("config".to_string(), learner.config.to_toml()?),
        (
            "templates.iteration".to_string(),
            learner.templates.iteration.map_or(String::new(), |i| i.to_string()),
        ),
    ]);
    let device = learner.device.clone();
    let templates: Vec<(&str, Tensor)> =
        learner.templates.named().into_iter().map(|(name, t)| (name, t.clone())).collect();
    let mut entries = network_entries(&device, &learner.student, Network::Student.prefix());
    if let Some(teacher) = &learner.teacher {
        entries.extend(network_entries(&device, teacher, Network::Teacher.prefix()));
    }
    let optimizer = &learner.optimizer;
    for (prefix, flat) in MOMENTS.into_iter().zip([&optimizer.exp_avg, &optimizer.exp_avg_sq]) {
        entries.extend(param_entries(&device, &learner.student, flat, prefix));
    }
    for (name, tensor) in templates.into_iter().filter(|(_, tensor)| !tensor.is_empty()) {
        let device = device.clone();
        let dtype = if tensor.dtype() == DType::U8 { Dtype::U8 } else { Dtype::F32 };
        entries.push(Entry {
            name: name.into(),
            dtype,
            shape: tensor.shape().into(),
            bytes: Box::new(move || match dtype {
                Dtype::U8 => device.read::<u8>(&tensor),
                _ => Ok(bytemuck::cast_slice(&device.read_f32(&tensor)?).to_vec()),
            }),
        });
    }
    if let Some(batch) = batch {
        let (pixels, notes) = batch::entries(batch)?;
        entries.extend(pixels);
        metadata.insert(batch::KEY.into(), notes);
    }
    writer::write(path, entries, metadata)
}

/// Restores what [`save`] wrote, and says where the run stands.
pub fn load(file: &TensorFile, learner: &mut Learner) -> Result<Position> {
    let path = file.path();
    let number = |key: &str| file.metadata(key).and_then(|text| text.parse::<u64>().ok());
    let Some(next) = number("iteration") else {
        let problem = "is not a checkpoint of a run (weights alone start one with --checkpoint)";
        return Err(Error::weights(path, problem));
    };
    let device = learner.device.clone();
    load_network(file, &device, &mut learner.student, Network::Student)?;
    if let Some(teacher) = &mut learner.teacher {
        load_network(file, &device, teacher, Network::Teacher)?;
    }
    if !load_moments(file, learner)? {
        return Err(Error::weights(path, format!("holds no tensor `{}…`", MOMENTS[0])));
    }
    learner.templates.iteration = number("templates.iteration");
    if learner.templates.iteration.is_some() {
        for (name, tensor) in learner.templates.named() {
            if tensor.is_empty() {
                continue;
            }
            check(file, name, tensor.shape())?;
            match tensor.dtype() {
                DType::U8 => device.write(tensor, &file.exactly(name, Dtype::U8)?)?,
                _ => device.write_real(tensor, &file.numbers(name)?)?,
            }
        }
    }
    let skipped = file.metadata("skipped").unwrap_or("[]");
    let skipped = serde_json::from_str(skipped)
        .map_err(|e| Error::weights(path, format!("its list of skipped files: {e}")))?;
    Ok(Position { next, skipped })
}

/// AdamW's moments of a checkpoint, this program's or the reference's; false where it has none.
pub fn load_moments(file: &TensorFile, learner: &mut Learner) -> Result<bool> {
    let prefix = network_prefix(file, Network::Student)?;
    let Some(names) = moments::names(file, prefix) else { return Ok(false) };
    let device = learner.device.clone();
    let Learner { optimizer, student, .. } = learner;
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
            format!("tensor `{name}` is {:?}, this configuration needs {wanted:?}", info.shape)
        }
        None => format!("tensor `{name}` is missing"),
    };
    Err(Error::weights(file.path(), problem))
}

/// A learner that goes on where a checkpoint of another run or program stands: its student and
/// moments, the teacher's parameters copied from the student as the released code does, and
/// counters at `iteration`. At 0 it is the student alone.
pub fn begin(file: &TensorFile, learner: &mut Learner, iteration: u64) -> Result<bool> {
    let device = learner.device.clone();
    if let Some(teacher) = &mut learner.teacher
        && network_prefix(file, Network::Teacher).is_ok()
    {
        // Its batch-norm statistics stay its own.
        load_network(file, &device, teacher, Network::Teacher)?;
        teacher.copy_values(&device, &learner.student)?;
    }
    Ok(iteration == 0 || load_moments(file, learner)?)
}

/// Parameters and buffers of one network.
fn network_entries<'a>(device: &'a Device, weights: &'a Weights, prefix: &str) -> Vec<Entry<'a>> {
    let mut entries = param_entries(device, weights, &weights.values, prefix);
    for (index, buffer) in weights.spec().buffers().iter().enumerate() {
        // PyTorch counts batches in a scalar of type int64.
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

/// One entry for every parameter, out of a flat buffer laid out like them.
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
