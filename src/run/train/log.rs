//! The training log `log.jsonl`, with one JSON object per line.
//!
//! Each line has a key `event`: `start` (run, version and configuration; written whenever the run is
//! started or resumed), `iteration`, `evaluation`, or any other kind given to [`Log::note`]. Each
//! line is one write, so that a killed run leaves at most the last line incomplete.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::file::atomic::write_atomic;
use crate::file::{self, MAX_TEXT};
use crate::run::eval::report::Report;

/// The name of the log in a run's folder.
pub(super) const LOG: &str = "log.jsonl";

/// The report of one iteration, for the log and for the observer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Iteration {
    /// Number of the iteration, counting from 0.
    pub iteration: u64,
    /// Losses in order, with the names used in the reference's logs.
    pub losses: Vec<(String, f32)>,
    /// Learning rate.
    pub lr: f64,
    /// Recent training throughput in images per second, counting both domains.
    pub images_per_second: f64,
    /// Duration of the iteration.
    pub seconds: f64,
    /// Share of pixels with a confident pseudo-label, from 0 to 1; `None` without a teacher.
    pub pseudo_label_weight: Option<f32>,
    /// Additional keys of the log line, such as peak memory.
    pub more: Map<String, Value>,
}

/// Writes one line with losses, learning rate and throughput.
impl fmt::Display for Iteration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut passes: Vec<(&str, f32)> = Vec::new();
        for (name, value) in &self.losses {
            let pass = pass_of(name);
            match passes.iter_mut().find(|(known, _)| *known == pass) {
                Some((_, sum)) => *sum += value,
                None => passes.push((pass, *value)),
            }
        }
        write!(f, "loss {:.2}", passes.iter().map(|(_, sum)| sum).sum::<f32>())?;
        if passes.len() > 1 {
            let terms: Vec<String> =
                passes.iter().map(|(pass, sum)| format!("{pass} {sum:.2}")).collect();
            write!(f, " ({})", terms.join(" "))?;
        }
        if let Some(weight) = self.pseudo_label_weight {
            write!(f, "  conf {:.0}%", 100.0 * weight)?;
        }
        write!(f, "  {:.2} img/s", self.images_per_second)
    }
}

/// The pass of an iteration that a loss belongs to, by the prefix of its name.
pub(crate) fn pass_of(name: &str) -> &'static str {
    match name.split_once('.').map_or("", |(prefix, _)| prefix) {
        "mix" | "mix_tss" | "mix_tst" => "mix",
        "masked" => "mask",
        _ if name.contains("feat_dist") => "feat",
        _ => "src",
    }
}

/// A log that is open for appending.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// The identity of the folder that the file is in.
    folder: (u64, u64),
    /// The line that says how the run was started.
    begin: Value,
    note: Option<String>,
}

impl Log {
    /// Creates the log of a new run, `run`, whose first iteration is `first`.
    ///
    /// # Errors
    /// [`Error::Data`] if the file already holds a run; [`Error::Io`].
    pub fn create(path: impl AsRef<Path>, first: u64, run: &str, config: &Config) -> Result<Self> {
        let path = path.as_ref();
        if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            let problem = "this folder already contains a run: continue it with --resume, or \
                           choose another folder with --out";
            return Err(Error::data(path, problem));
        }
        Log::open(path, first, run, config)
    }

    /// Continues the log of a run whose next iteration is `next`. Lines that a killed run logged
    /// after its last checkpoint are removed, because those iterations run again, and so is an
    /// incomplete last line. A missing file is created.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn resume(path: impl AsRef<Path>, next: u64, run: &str, config: &Config) -> Result<Self> {
        let path = path.as_ref();
        match file::read(path, MAX_TEXT) {
            Ok(old) => {
                let kept = keep(&old, next);
                if kept != old {
                    write_atomic(path, |file| file.write_all(&kept))?;
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(path, "read", e)),
        }
        Log::open(path, next, run, config)
    }

    fn open(path: &Path, next: u64, run: &str, config: &Config) -> Result<Self> {
        let folder = folder_of(path);
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        let file = file::open_with(path, OpenOptions::new().create(true).append(true), 0)
            .map_err(|e| Error::io(path, "open", e))?;
        let folder = identity(folder).map_err(|e| Error::io(folder, "find", e))?;
        let config = serde_json::to_value(config)
            .map_err(|e| Error::config(format!("cannot serialize the configuration: {e}")))?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let version = env!("CARGO_PKG_VERSION");
        let begin = json!({
            "event": "start", "iteration": next, "run": run, "version": version, "unix_time": time,
            "config": config,
        });
        let mut log = Log { path: path.into(), file, folder, begin: begin.clone(), note: None };
        log.write(&begin)?;
        Ok(log)
    }

    /// Appends the line of one iteration. Values that are not finite become `null`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if the file was moved or replaced meanwhile. One that was
    /// removed is begun anew, which [`take_note`](Self::take_note) tells.
    pub fn iteration(&mut self, it: &Iteration) -> Result<()> {
        let losses: Map<String, Value> =
            it.losses.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let mut line = json!({
            "event": "iteration", "iteration": it.iteration, "losses": losses, "lr": it.lr,
            "images_per_second": it.images_per_second, "seconds": it.seconds,
            "pseudo_label_weight": it.pseudo_label_weight,
        });
        if let Value::Object(line) = &mut line {
            line.extend(it.more.clone());
        }
        self.line(&line)
    }

    /// Appends the line of an evaluation after `iteration` iterations.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn evaluation(&mut self, iteration: u64, report: &Report) -> Result<()> {
        let mut line = json!({
            "event": "evaluation", "iteration": iteration, "mIoU": report.confusion.mean_iou(),
            "aAcc": report.confusion.all_accuracy(), "IoU": report.confusion.iou(),
            "images": report.images, "data": report.data, "seconds": report.seconds,
        });
        for (classes, mean) in report.synthia() {
            line[format!("mIoU{classes}")] = json!(mean);
        }
        self.line(&line)
    }

    /// Makes the lines so far durable, so that a checkpoint is never ahead of the log.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, "write", e))
    }

    /// Appends a line of any other kind for `iteration`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn note(&mut self, event: &str, iteration: u64, fields: Map<String, Value>) -> Result<()> {
        let mut line = Map::new();
        line.insert("event".into(), event.into());
        line.insert("iteration".into(), iteration.into());
        line.extend(fields);
        self.line(&Value::Object(line))
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        self.must_be_there()?;
        self.write(value)
    }

    fn write(&mut self, value: &Value) -> Result<()> {
        let text = format!("{value}\n");
        self.file.write_all(text.as_bytes()).map_err(|e| Error::io(&self.path, "write", e))
    }

    /// Makes sure that the path still leads to the file: otherwise nobody would see what is written.
    /// A log that was removed is begun anew.
    fn must_be_there(&mut self) -> Result<()> {
        let cannot = |e| Error::io(&self.path, "find", e);
        match identity(&self.path) {
            Ok(found) if found == of(&self.file.metadata().map_err(cannot)?) => return Ok(()),
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(cannot(e)),
            Err(_) if identity(folder_of(&self.path)).is_ok_and(|found| found == self.folder) => {}
            _ => {
                let problem = "was moved or replaced while the run was writing to it: leave a \
                               run's folder alone until it has ended; --resume goes on from its \
                               last checkpoint";
                return Err(Error::data(&self.path, problem));
            }
        }
        let options = OpenOptions::new().create_new(true).append(true).clone();
        self.file = file::open_with(&self.path, &options, 0)
            .map_err(|e| Error::io(&self.path, "open", e))?;
        let problem = "was removed under the run; what it held is lost, and it begins anew here";
        self.note = Some(Error::data(&self.path, problem).to_string());
        let begin = self.begin.clone();
        self.write(&begin)
    }

    /// Returns what the user should know about the log, once.
    pub fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }
}

/// Returns the folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Tells a file or folder from all others.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    path.metadata().map(|found| of(&found))
}

fn of(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Returns the lines that stay valid for a run resumed at iteration `next`.
fn keep(old: &[u8], next: u64) -> Vec<u8> {
    let mut kept = Vec::with_capacity(old.len());
    for line in old.split_inclusive(|&byte| byte == b'\n') {
        let whole = line.ends_with(b"\n");
        match serde_json::from_slice::<Value>(line) {
            Ok(value) if whole => {
                let at = value["iteration"].as_u64().unwrap_or(0);
                // An iteration's number counts from 0; an evaluation's is the number of iterations
                // done.
                if at < next || (at == next && value["event"] == "evaluation") {
                    kept.extend_from_slice(line);
                }
            }
            // A line cut off in mid-file, as when the disk was full for a while, is kept unchanged.
            Err(_) if whole => kept.extend_from_slice(line),
            _ => {}
        }
    }
    kept
}

/// Returns the run that a log belongs to; `None` if there is no log, or it does not say.
pub fn run_of(path: impl AsRef<Path>) -> Option<String> {
    let mut line = String::new();
    BufReader::new(file::open(path.as_ref()).ok()?.take(1 << 20)).read_line(&mut line).ok()?;
    let start: Value = serde_json::from_str(&line).ok()?;
    Some(start["run"].as_str()?.to_owned())
}

/// Reads all lines of a log, except an incomplete last one.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`], with the line number, if a line is not JSON.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Value>> {
    let path = path.as_ref();
    let text = file::read(path, MAX_TEXT).map_err(|e| Error::io(path, "read", e))?;
    let lines = text.split_inclusive(|&byte| byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| line.ends_with(b"\n"))
        .map(|(i, line)| {
            serde_json::from_slice(line)
                .map_err(|e| Error::data(path, format!("line {}: {e}", i + 1)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iteration_is_one_line() {
        let losses = |names: &[&str]| names.iter().map(|n| (n.to_string(), 1.23456)).collect();
        let source = Iteration {
            losses: losses(&["decode.loss_seg"]),
            images_per_second: 1.5,
            ..Iteration::default()
        };
        assert_eq!(source.to_string(), "loss 1.23  1.50 img/s");
        let parts = ["decode.loss_seg", "decode.hr.loss_seg"];
        let passes = ["", "mix_tss.", "mix_tst.", "masked."];
        let mut names: Vec<String> =
            passes.iter().flat_map(|pass| parts.map(|part| format!("{pass}{part}"))).collect();
        names.push("src.loss_imnet_feat_dist".into());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let quad_mix =
            Iteration { losses: losses(&names), pseudo_label_weight: Some(0.256), ..source };
        let line = quad_mix.to_string();
        assert_eq!(
            line,
            "loss 11.11 (src 2.47 mix 4.94 mask 2.47 feat 1.23)  conf 26%  1.50 img/s"
        );
        let whole = format!("it 39999/40000  {line}  eta 3d04h");
        assert!(whole.len() <= 100, "{} columns", whole.len());
    }
}
