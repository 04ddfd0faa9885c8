//! The checkpoints in a run's folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::tensor_file::TensorFile;
use crate::{Error, Result};

/// Returns the folder for the checkpoints of a run.
pub fn folder(out: &Path) -> PathBuf {
    out.join("checkpoints")
}

/// Returns the path of the checkpoint at `iteration`.
pub fn path_of(out: &Path, iteration: u64) -> PathBuf {
    folder(out).join(format!("iteration_{iteration:06}.safetensors"))
}

/// Returns the path of the checkpoint of a run's best evaluation.
pub fn best(out: &Path) -> PathBuf {
    folder(out).join("best.safetensors")
}

/// Returns the checkpoints of a run with their iterations, oldest first.
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

/// Returns `path`, or the folder of that name in `runs/` if nothing else has the name.
pub fn find(path: &Path) -> PathBuf {
    let run = Path::new("runs").join(path);
    let bare = path.components().count() == 1;
    if bare && !path.exists() && run.is_dir() { run } else { path.into() }
}

/// Returns a run's newest checkpoint if `path` is a folder or the name of one in `runs/`, and
/// otherwise `path` itself.
///
/// # Errors
/// [`Error::Weights`] if the folder holds no checkpoint.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let path = &find(path);
    if !path.is_dir() {
        return Ok(path.clone());
    }
    let newest = list(path).pop();
    newest.map(|(_, file)| file).ok_or_else(|| {
        let problem = "this folder contains no checkpoint; a run saves its first one after \
                       run.checkpoint_interval iterations";
        Error::weights(path, problem)
    })
}

/// Opens a file, or the newest checkpoint in a run's folder. A running training may remove that
/// checkpoint before it is opened; then there is a newer one, so the lookup is retried.
///
/// # Errors
/// [`Error::Weights`] if the folder holds no checkpoint or the file is malformed; [`Error::Io`].
pub fn open(path: &Path) -> Result<TensorFile> {
    let path = &find(path);
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

/// Removes all but the newest `keep` checkpoints; 0 keeps all.
pub fn prune(out: &Path, keep: usize) -> Result<()> {
    let all = if keep == 0 { Vec::new() } else { list(out) };
    for (_, old) in &all[..all.len().saturating_sub(keep)] {
        std::fs::remove_file(old).map_err(|e| Error::io(old, "remove", e))?;
    }
    Ok(())
}
