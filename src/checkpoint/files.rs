//! The checkpoints in a run's folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::identity;
use super::tensor_file::{self, TensorFile};
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
        .map(|entry| entry.path())
        .filter_map(|path| Some((iteration_in_name(&path)?, path)))
        .collect();
    all.sort();
    all
}

fn iteration_in_name(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("iteration_")?.strip_suffix(".safetensors")?.parse().ok()
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
    resolve_at(&find(path))
}

fn resolve_at(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.into());
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
/// [`Error::Weights`] if the folder holds no checkpoint, the file is damaged, or its iteration is
/// not the one in its name; for a damaged checkpoint of a folder, the newest whole one is named.
/// [`Error::Io`].
pub fn open(path: &Path) -> Result<TensorFile> {
    open_at(&find(path))
}

/// Opens a file, or the newest checkpoint in a folder, like [`open`], but at this path alone: a name
/// is not looked for in `runs/` of the working directory.
///
/// # Errors
/// The same as for [`open`].
pub fn open_at(path: &Path) -> Result<TensorFile> {
    let mut attempts = 8;
    loop {
        match open_named(&resolve_at(path)?) {
            Err(Error::Io { source, .. })
                if path.is_dir() && source.kind() == ErrorKind::NotFound && attempts > 0 =>
            {
                attempts -= 1;
            }
            Err(error) if path.is_dir() => return Err(with_the_newest_whole(error, path)),
            other => return other,
        }
    }
}

/// Opens the newest checkpoint in a run's folder that is whole, and returns the errors of those
/// after it.
///
/// # Errors
/// The error of the newest checkpoint, if none is whole.
pub fn open_newest_whole(out: &Path) -> Result<(TensorFile, Vec<Error>)> {
    let mut damaged = Vec::new();
    for (_, path) in list(out).into_iter().rev() {
        match open_named(&path) {
            Ok(file) => return Ok((file, damaged)),
            Err(error) => damaged.push(error),
        }
    }
    // Without any checkpoint, resolving says so.
    Err(damaged.into_iter().next().map_or_else(|| resolve(out).err(), Some).unwrap_or_else(|| {
        Error::weights(out, "its checkpoints changed while they were opened: try again")
    }))
}

fn open_named(path: &Path) -> Result<TensorFile> {
    let file = TensorFile::open(path)?;
    if let Some(named) = iteration_in_name(path)
        && let Some(iteration) = identity::iteration(&file)?
        && iteration != named
    {
        let problem = format!(
            "is the checkpoint of iteration {iteration}, not of the one in its name: rename it or \
             move it away"
        );
        return Err(Error::weights(path, problem));
    }
    Ok(file)
}

/// Adds to the error of a damaged checkpoint which one is whole.
fn with_the_newest_whole(error: Error, out: &Path) -> Error {
    let Error::Weights { path, problem } = error else { return error };
    let Ok((whole, _)) = open_newest_whole(out) else { return Error::Weights { path, problem } };
    let advice = format!(
        "{problem}. The newest whole checkpoint is {}: `train --resume=auto` goes on from there",
        whole.path().display()
    );
    Error::weights(path, advice)
}

/// Returns the iterations of a run's checkpoints in its folder, up to `last`. Files of other runs,
/// and damaged ones, are left out.
pub fn of_run(out: &Path, run: &str, last: u64) -> Vec<u64> {
    let mine = |path: &Path| {
        let strings = tensor_file::metadata(path).unwrap_or_default();
        strings.get(identity::RUN).is_some_and(|id| id == run)
    };
    let listed = list(out).into_iter().filter(|(iteration, _)| *iteration <= last);
    listed.filter(|(_, path)| mine(path)).map(|(iteration, _)| iteration).collect()
}
