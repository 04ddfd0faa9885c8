//! Where the commands meet the library's rooms that are not built yet. Each function says by its
//! signature what the command needs; it goes as soon as the library has it.

#![expect(dead_code, reason = "read once the rooms behind are there")]

use std::path::{Path, PathBuf};

use udass_raw::config::Config;
use udass_raw::run::report::Report;
use udass_raw::run::signal::Stop;

use super::size::Size;

/// What a training run begins with.
#[derive(Clone, Debug)]
pub enum Start {
    /// `weights.init` of the configuration.
    Weights,
    /// The newest checkpoint in the run's folder, with all of its state.
    Resume,
    /// A file: a checkpoint of this program or of the reference.
    Checkpoint(PathBuf),
}

/// What `predict` is asked for.
#[derive(Clone, Debug)]
pub struct Prediction<'a> {
    pub checkpoint: &'a Path,
    pub images: &'a [PathBuf],
    /// Folder of the pictures.
    pub out: &'a Path,
    /// The logits too, as safetensors.
    pub logits: Option<&'a Path>,
    /// Size of the network's input, instead of `eval.fit`.
    pub resize: Option<Size>,
}

/// Steps done, steps in all.
pub type Advance<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Whether the run came to its end; `false` when `stop` was asked.
pub fn train(_: &Config, _: Start, _: &Stop) -> anyhow::Result<bool> {
    missing("train")
}

pub fn evaluate(_: &Config, _: &Path, _: Advance) -> anyhow::Result<Report> {
    missing("eval")
}

/// The files written.
pub fn predict(_: &Config, _: &Prediction, _: Advance) -> anyhow::Result<Vec<PathBuf>> {
    missing("predict")
}

pub fn prepare(_layout: &str, _root: &Path, _: Advance) -> anyhow::Result<()> {
    missing("prepare")
}

pub fn toy(
    _dir: &Path,
    _source: Size,
    _target: Size,
    _seed: u64,
    _: Advance,
) -> anyhow::Result<()> {
    missing("toy")
}

fn missing<T>(command: &str) -> anyhow::Result<T> {
    anyhow::bail!("this build has no `{command}` yet")
}
