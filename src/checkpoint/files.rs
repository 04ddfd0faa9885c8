//! The checkpoints in a run's folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::tensor_file::TensorFile;
use crate::{Error, Result};

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

/// Opens a file, or the newest checkpoint of a run's folder, which may be removed between the look
/// into the folder and the opening: then there is a newer one.
pub fn open(path: &Path) -> Result<TensorFile> {
    let mut attempts = 8;
    loop {
        match TensorFile::open(resolve(path)?) {
            Err(Error::Io { source, .. })
                if path.is_dir() && source.kind() == ErrorKind::NotFound && attempts > 0 =>
            {
                attempts -= 1;
            }
            other => return other,
        }
    }
}

/// Removes all but the newest `keep` checkpoints.
pub fn prune(out: &Path, keep: usize) -> Result<()> {
    let all = list(out);
    for (_, old) in &all[..all.len().saturating_sub(keep.max(1))] {
        std::fs::remove_file(old).map_err(|e| Error::io(old, "remove", e))?;
    }
    Ok(())
}
