//! Checks that a resumed run is the run that was interrupted.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::log;
use crate::checkpoint::files;
use crate::checkpoint::state::{self, Position};
use crate::checkpoint::tensor_file::TensorFile;
use crate::config::Config;
use crate::data::inventory::Inventory;
use crate::file::{self, MAX_TEXT};
use crate::hex::hex;
use crate::{Error, Result};

/// The name of the file in a run's folder that lists the files it trains on.
pub const DATA: &str = "data.tsv";

/// How a run is resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResumeOptions {
    /// Passes over damaged checkpoints to the newest whole one.
    pub skip_damaged_checkpoints: bool,
    /// Continues even if the data is not that of the checkpoint.
    pub accept_changed_data: bool,
}

/// Opens the checkpoint to resume from, and returns messages for the user.
///
/// # Errors
/// [`Error::Weights`] if there is none, or it is damaged and that is not accepted.
pub fn open(out: &Path, options: ResumeOptions) -> Result<(TensorFile, Vec<String>)> {
    if files::list(out).is_empty() {
        let problem = "there is no checkpoint to resume here: start the run without --resume, or \
                       give the folder of another with --out";
        return Err(Error::weights(out, problem));
    }
    if !options.skip_damaged_checkpoints {
        return Ok((files::open(out)?, Vec::new()));
    }
    let (file, damaged) = files::open_newest_whole(out)?;
    let mut notes: Vec<String> = damaged.iter().map(Error::to_string).collect();
    if !notes.is_empty() {
        notes.push(format!("continuing from {} instead", file.path().display()));
    }
    Ok((file, notes))
}

/// Checks that the configuration computes the same as the one the run was started with.
///
/// # Errors
/// [`Error::Weights`], with the keys that differ, or if the file is not a checkpoint of a run.
pub fn check_configuration(config: &Config, file: &TensorFile) -> Result<()> {
    state::next_iteration(file)?;
    let Some(saved) = file.metadata("config") else {
        return Err(Error::weights(file.path(), "its `config` is missing"));
    };
    let wrong = |e: Error| Error::weights(file.path(), e.to_string());
    let differences = config.differences(saved).map_err(wrong)?;
    if differences.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "the run was started with another configuration\n  {}\nIt can only continue with its own; \
         --checkpoint starts a new run from it with this one",
        differences.join("\n  ")
    );
    Err(Error::weights(file.path(), problem))
}

/// Checks that the log is that of the checkpoint's run.
///
/// # Errors
/// [`Error::Weights`] if it is another run's.
pub fn check_log(log: &Path, file: &TensorFile, position: &Position) -> Result<()> {
    match log::run_of(log) {
        Some(run) if !position.run.is_empty() && run != position.run => {
            let problem = format!(
                "is a checkpoint of run {}, but {} is the log of run {run}: move the checkpoint or \
                 the log away",
                position.run,
                log.display()
            );
            Err(Error::weights(file.path(), problem))
        }
        _ => Ok(()),
    }
}

/// Checks that the data is that of the checkpoint. Returns a message for the user if other data is
/// accepted.
///
/// # Errors
/// [`Error::Data`], with what changed.
pub fn check_data(
    out: &Path,
    position: &Position,
    inventory: &Inventory,
    options: ResumeOptions,
) -> Result<Option<String>> {
    if position.data.is_empty() {
        let note = "the checkpoint is an earlier version's and does not say which data it was \
                    trained on, so that was not compared";
        return Ok(Some(note.into()));
    }
    // Without the list, only the numbers of files are told.
    let earlier = file::read_text(&out.join(DATA), MAX_TEXT).unwrap_or_default();
    let changes = inventory.changes(&position.data, &Inventory::from_text(&earlier));
    if changes.is_empty() {
        return Ok(None);
    }
    let changes =
        format!("the data has changed since the run was started\n  {}", changes.join("\n  "));
    if options.accept_changed_data {
        return Ok(Some(changes));
    }
    let problem = format!(
        "{changes}\nThe run would no longer compute what it would have; restore the data, or \
         continue with it as it is by --accept-changed-data"
    );
    Err(Error::data(out, problem))
}

/// Returns what identifies a new run: a digest of all that its results depend on. `start` is a
/// digest of the checkpoint that it starts from, if any.
///
/// # Errors
/// [`Error::Config`] if the configuration has no TOML form.
pub fn new_run(config: &Config, data: &Summary, start: &str) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(config.determining()?);
    hash.update(format!("{data:?}\0{start}"));
    Ok(hex(&hash.finalize()[..8]))
}

/// A summary of an [`Inventory`].
pub type Summary = BTreeMap<String, (usize, String)>;
