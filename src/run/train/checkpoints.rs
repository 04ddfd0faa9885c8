//! The checkpoints that a run has saved. It removes old ones of its own, and no other files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::checkpoint::files;
use crate::checkpoint::state::{self, Position};
use crate::config::Config;
use crate::file::atomic;
use crate::uda::state::TrainingState;
use crate::{Error, Result};

/// The checkpoints of a run in its folder.
#[derive(Debug)]
pub struct Checkpoints {
    out: PathBuf,
    /// Number of checkpoints to keep; 0 keeps all.
    keep: usize,
    iterations: BTreeSet<u64>,
    /// Whether this process writes and removes them, as the first of a group does for all.
    writes: bool,
}

impl Checkpoints {
    /// Finds the checkpoints that the run saved before `position`. If it ended before it could remove
    /// old ones, they are removed. All processes of a group keep the list, and one `writes`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn find(config: &Config, position: &Position, writes: bool) -> Result<Checkpoints> {
        let out = config.run.out.clone();
        let iterations = files::of_run(&out, &position.run, position.next).into_iter().collect();
        let mut checkpoints = Checkpoints { out, keep: config.run.keep, iterations, writes };
        checkpoints.prune()?;
        Ok(checkpoints)
    }

    /// Saves a checkpoint, and removes the oldest if there are too many.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Device`] if the state cannot be read.
    pub fn save(&mut self, training: &mut TrainingState, position: &Position) -> Result<()> {
        state::save(&files::path_of(&self.out, position.next), training, position, None)?;
        self.iterations.insert(position.next);
        self.prune()
    }

    fn prune(&mut self) -> Result<()> {
        while self.keep > 0 && self.iterations.len() > self.keep {
            let Some(oldest) = self.iterations.pop_first() else { break };
            if !self.writes {
                continue;
            }
            let path = files::path_of(&self.out, oldest);
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
        Ok(())
    }

    /// Makes the checkpoint at `iteration`, if there is one, the best one of the run. The published
    /// weights are such picks.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep_as_best(&self, iteration: u64) -> Result<bool> {
        let saved = self.iterations.contains(&iteration);
        if saved && self.writes {
            atomic::link(&files::path_of(&self.out, iteration), &files::best(&self.out))?;
        }
        Ok(saved)
    }
}
