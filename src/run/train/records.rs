//! What a run writes while it trains: log and event file. In a group, the first process alone.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::lock::FolderLock;
use super::log::{self, Iteration, LOG, Log};
use super::tensorboard::{Samples, TensorBoard};
use crate::checkpoint::files;
use crate::checkpoint::state::Position;
use crate::config::Config;
use crate::device::{Device, processor};
use crate::file::atomic::write_atomic;
use crate::observer::Observer;
use crate::run::eval::report::Report;
use crate::{Error, Result};

/// The open files of a run, and the lock on its folder.
pub struct Records {
    log: Log,
    board: TensorBoard,
    lock: FolderLock,
}

impl Records {
    /// Opens the log and the event file of a run that is at `position`, and writes other `files` of
    /// this name and text to its folder. `resumes` says whether it continues.
    ///
    /// # Errors
    /// [`Error::Data`] if the folder holds another run; [`Error::Io`].
    pub fn open(
        config: &Config,
        device: &Device,
        position: &Position,
        resumes: bool,
        lock: Option<FolderLock>,
        files: [(&str, String); 2],
    ) -> Result<Records> {
        let out = &config.run.out;
        let lock = match lock {
            Some(lock) => lock,
            None => FolderLock::take(out)?,
        };
        let first = position.next;
        // The log marks the folder as a run's, so it is opened only once everything else is ready.
        let mut log = open_log(config, resumes, position)?;
        let board = TensorBoard::open(config, resumes.then_some(first));
        log_machine(device, &mut log, first)?;
        for (name, text) in files {
            write_atomic(out.join(name), |file| file.write_all(text.as_bytes()))?;
        }
        Ok(Records { log, board, lock })
    }

    /// Returns what the user should know about the lock, if there is anything.
    pub fn note(&self) -> Option<&str> {
        self.lock.note()
    }

    /// Writes an iteration, with images of it if there are some.
    pub fn iteration(
        &mut self,
        line: &Iteration,
        samples: Option<&Samples>,
        observer: &dyn Observer,
    ) -> Result<()> {
        self.log.iteration(line)?;
        self.log.take_note().iter().for_each(|note| observer.message(note));
        self.board.iteration(line);
        samples.iter().for_each(|samples| self.board.samples(line.iteration, samples));
        self.tell_board(observer);
        Ok(())
    }

    /// Writes the result of an evaluation after `done` iterations.
    pub fn evaluation(
        &mut self,
        done: u64,
        report: &Report,
        observer: &dyn Observer,
    ) -> Result<()> {
        self.log.evaluation(done, report)?;
        self.board.evaluation(done, report);
        self.tell_board(observer);
        Ok(())
    }

    /// Writes a file that was skipped, as the `count`-th.
    pub fn skipped(
        &mut self,
        iteration: u64,
        file: &Path,
        problem: &str,
        count: usize,
    ) -> Result<()> {
        let fields = [
            ("file".to_string(), file.display().to_string().into()),
            ("problem".to_string(), problem.into()),
            ("skipped".to_string(), count.into()),
        ];
        self.log.note("skipped_file", iteration, fields.into_iter().collect())
    }

    /// Makes everything written so far survive the machine.
    pub fn sync(&mut self, observer: &dyn Observer) -> Result<()> {
        self.log.sync()?;
        self.board.sync();
        self.tell_board(observer);
        Ok(())
    }

    /// Tells the user if the event file has ended.
    fn tell_board(&mut self, observer: &dyn Observer) {
        self.board.take_note().iter().for_each(|note| observer.message(note));
    }
}

/// Logs where and by what the run is trained.
fn log_machine(device: &Device, log: &mut Log, first: u64) -> Result<()> {
    let facts = [
        ("commit", env!("UDASS_COMMIT").to_owned()),
        ("device", device.describe()),
        ("processor", processor()),
    ];
    let fields = facts.map(|(key, text)| (key.to_string(), text.into()));
    let processes = Some(device.place().size).filter(|&size| size > 1);
    let processes = processes.map(|size| ("processes".to_string(), size.into()));
    log.note("machine", first, fields.into_iter().chain(processes).collect())
}

/// Returns whether the log has an evaluation after `done` iterations.
pub fn is_evaluated(out: &Path, done: u64) -> bool {
    let at = |line: &Value| line["event"] == "evaluation" && line["iteration"] == done;
    log::read(out.join(LOG)).unwrap_or_default().iter().any(at)
}

fn open_log(config: &Config, resumes: bool, position: &Position) -> Result<Log> {
    let out = &config.run.out;
    let path = out.join(LOG);
    let Position { next, run, .. } = position;
    if resumes {
        return Log::resume(&path, *next, run, config);
    }
    let saved = files::list(out).into_iter().map(|(_, file)| file);
    let saved = saved.chain([files::best(out)]).find(|file| file.exists());
    match saved {
        // A run without a checkpoint cannot be resumed, so its log is set aside.
        None if path.exists() => {
            let aside = out.join("log.jsonl.old");
            std::fs::rename(&path, &aside).map_err(|e| Error::io(&path, "set aside", e))?;
        }
        Some(file) if !path.exists() => {
            let problem = format!(
                "this folder holds checkpoints of another run ({}) and no log: continue that run \
                 with --resume, or choose another folder with --out",
                file.display()
            );
            return Err(Error::data(out, problem));
        }
        _ => {}
    }
    Log::create(&path, *next, run, config)
}
