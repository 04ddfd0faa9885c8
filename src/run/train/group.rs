//! What the processes of a group tell each other between iterations.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::resume::Summary;
use crate::checkpoint::state::Position;
use crate::config::Config;
use crate::data::BadFile;
use crate::device::Device;
use crate::tensor::{DType, Tensor};
use crate::uda::state::TrainingState;
use crate::{Error, Result};

/// Waits for all processes.
pub fn meet(device: &Device) -> Result<()> {
    device.exchange(&[]).map(|_| ())
}

/// Checks that all processes train the same run from the same iteration on: program, configuration
/// and data. Alone, nothing is compared.
///
/// # Errors
/// [`Error::Training`], with what differs and where.
pub fn check_run(device: &Device, config: &Config, next: u64, data: &Summary) -> Result<()> {
    if device.place().size == 1 {
        return Ok(());
    }
    let files: String =
        data.iter().map(|(list, (n, digest))| format!("{list} {n} {digest}\n")).collect();
    let facts = [
        ("program", format!("{} {}", env!("CARGO_PKG_VERSION"), env!("UDASS_COMMIT"))),
        ("configuration", config.determining()?),
        ("intervals", format!("{:?}", (&config.run, &config.eval))),
        ("next iteration", next.to_string()),
        ("data", files),
    ];
    let facts = facts.map(|(what, text)| (what, text.into_bytes()));
    match differing(device, &facts)? {
        None => Ok(()),
        Some((rank, what)) => Err(Error::Training(format!(
            "the {what} of process {rank} is not that of process 0: all processes of a run need the \
             same command, program, data and folder"
        ))),
    }
}

/// Checks that all processes hold the same state. Alone, nothing is read.
///
/// # Errors
/// [`Error::Training`], with what differs and where.
pub fn check_state(training: &TrainingState, done: u64) -> Result<()> {
    let TrainingState { device, student, teacher, optimizer, .. } = training;
    if device.place().size == 1 {
        return Ok(());
    }
    let mut parts = vec![
        ("student", &student.values),
        ("student's statistics", &student.buffers),
        ("first moments", &optimizer.exp_avg),
        ("second moments", &optimizer.exp_avg_sq),
    ];
    if let Some(teacher) = teacher {
        parts.extend([("teacher", &teacher.values), ("teacher's statistics", &teacher.buffers)]);
    }
    let digest = |(what, tensor): (&'static str, &Tensor)| Ok((what, digest(device, tensor)?));
    let parts = parts.into_iter().map(digest).collect::<Result<Vec<_>>>()?;
    match differing(device, &parts)? {
        None => Ok(()),
        Some((rank, what)) => Err(Error::Training(format!(
            "after {done} iterations the {what} of process {rank} is not that of process 0: nothing \
             was saved (please report this); the run can continue from its last checkpoint"
        ))),
    }
}

fn digest(device: &Device, tensor: &Tensor) -> Result<Vec<u8>> {
    let crc = match tensor.dtype() {
        DType::F64 => crc32fast::hash(bytemuck::cast_slice(&device.read::<f64>(tensor)?)),
        _ => crc32fast::hash(bytemuck::cast_slice(&device.read::<f32>(tensor)?)),
    };
    Ok(crc.to_le_bytes().into())
}

/// Compares facts with those of the first process. Returns the first process with another one, and
/// which it is.
fn differing(
    device: &Device,
    facts: &[(&'static str, Vec<u8>)],
) -> Result<Option<(usize, &'static str)>> {
    for (what, fact) in facts {
        let all = device.exchange(fact)?;
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            return Ok(Some((rank, *what)));
        }
    }
    Ok(None)
}

/// Adds the files that any process had to skip to those that are known. Returns the new ones.
pub fn gather_skipped(device: &Device, position: &mut Position) -> Result<Vec<PathBuf>> {
    if device.place().size == 1 {
        return Ok(Vec::new());
    }
    let wrong = |e: serde_json::Error| Error::Training(format!("the list of skipped files: {e}"));
    let own = serde_json::to_vec(&position.skipped).map_err(wrong)?;
    let mut all = BTreeSet::new();
    for list in device.exchange(&own)? {
        let list: BTreeSet<PathBuf> = serde_json::from_slice(&list).map_err(wrong)?;
        all.extend(list);
    }
    let new = all.difference(&position.skipped).cloned().collect();
    position.skipped = all;
    Ok(new)
}

/// Returns whether a file is new among those that were skipped, and how many there are.
///
/// # Errors
/// [`Error::Training`] if there are more than `most`.
pub fn count_skipped(position: &mut Position, bad: &BadFile, most: usize) -> Result<Option<usize>> {
    if !position.skipped.insert(bad.path.clone()) {
        return Ok(None);
    }
    let count = position.skipped.len();
    if count > most {
        let problem =
            format!("{}; {most} files were already skipped (data.max_bad_files)", bad.problem);
        return Err(Error::Training(problem));
    }
    Ok(Some(count))
}
