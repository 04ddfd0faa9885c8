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
//! Beside them, as strings: `iteration` (the next one), `templates.iteration`, `version`, `config`.
//! There is no random state: every draw is a hash of seed and iteration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::tensor_file::{Entry, TensorFile, write};
use super::weights::{Network, is_count, load_network};
use crate::device::Device;
use crate::params::{ParamSpec, Weights};
use crate::tensor::{DType, Tensor};
use crate::uda::step::Learner;
use crate::{Error, Result};

const MOMENTS: [&str; 2] = ["optimizer.exp_avg.", "optimizer.exp_avg_sq."];

/// Where a run keeps its checkpoints.
pub fn folder(out: &Path) -> PathBuf {
    out.join("checkpoints")
}

pub fn path_of(out: &Path, iteration: u64) -> PathBuf {
    folder(out).join(format!("iteration_{iteration:06}.safetensors"))
}

/// The checkpoints of a run, oldest first.
pub fn list(out: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(folder(out)).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix("iteration_")?.strip_suffix(".safetensors")?;
            Some((number.parse().ok()?, entry.path()))
        })
        .collect();
    all.sort();
    all
}

/// A file as it is, a run's folder as its newest checkpoint.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.into());
    }
    let newest = list(path).pop();
    newest.map(|(_, file)| file).ok_or_else(|| {
        let problem = "this folder holds no checkpoint; a run saves its first after \
                       run.checkpoint_interval iterations";
        Error::weights(path, problem)
    })
}

/// Removes all but the newest `keep` checkpoints.
pub fn prune(out: &Path, keep: usize) -> Result<()> {
    let all = list(out);
    for (_, old) in &all[..all.len().saturating_sub(keep.max(1))] {
        std::fs::remove_file(old).map_err(|e| Error::io(old, "remove", e))?;
    }
    Ok(())
}

/// Writes the state before iteration `next`; the file is there whole or not at all.
pub fn save(path: &Path, learner: &mut Learner, next: u64) -> Result<()> {
    let metadata = BTreeMap::from([
        ("format".to_string(), "udass-raw checkpoint 1".to_string()),
        ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("iteration".to_string(), next.to_string()),
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
    write(path, entries, metadata)
}

/// Restores what [`save`] wrote; returns the next iteration.
pub fn load(path: &Path, learner: &mut Learner) -> Result<u64> {
    let file = TensorFile::open(path)?;
    let number = |key: &str| file.metadata(key).and_then(|text| text.parse::<u64>().ok());
    let Some(next) = number("iteration") else {
        let problem = "is not a checkpoint of a run (weights alone start one with --checkpoint)";
        return Err(Error::weights(path, problem));
    };
    let device = learner.device.clone();
    load_network(&file, &device, &mut learner.student, Network::Student)?;
    if let Some(teacher) = &mut learner.teacher {
        load_network(&file, &device, teacher, Network::Teacher)?;
    }
    let check = |name: &str, wanted: &[usize]| match file.find(name) {
        Some(info) if info.shape == wanted => Ok(()),
        Some(info) => {
            let problem = format!(
                "tensor `{name}` is {:?}, this configuration needs {wanted:?}",
                info.shape
            );
            Err(Error::weights(path, problem))
        }
        None => Err(Error::weights(path, format!("tensor `{name}` is missing"))),
    };
    let Learner { optimizer, student, .. } = &mut *learner;
    let flats = [&mut optimizer.exp_avg, &mut optimizer.exp_avg_sq];
    for (prefix, flat) in MOMENTS.into_iter().zip(flats) {
        student.load_flat(&device, flat, |param| {
            let name = format!("{prefix}{}", param.name);
            check(&name, &param.shape)?;
            file.numbers(&name).map(Some)
        })?;
    }
    learner.templates.iteration = number("templates.iteration");
    if learner.templates.iteration.is_some() {
        for (name, tensor) in learner.templates.named() {
            if tensor.is_empty() {
                continue;
            }
            check(name, tensor.shape())?;
            match tensor.dtype() {
                DType::U8 => device.write(tensor, &file.exactly(name, Dtype::U8)?)?,
                _ => device.write_real(tensor, &file.numbers(name)?)?,
            }
        }
    }
    Ok(next)
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
