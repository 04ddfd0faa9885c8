//! `log.jsonl`: one JSON object a line, for what a run did and when.
//!
//! Lines are `{"event": …}`: `start` (version, configuration; one for each time the run was started
//! or resumed), `iteration`, `evaluation`, and whatever [`Log::note`] is given. Each is one write, so
//! that a killed run leaves at most its last line torn.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::checkpoint::atomic::write_atomic;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::run::eval::report::Report;

/// What one iteration has to tell: to the log, and to whoever watches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Iteration {
    /// Counts from 0.
    pub iteration: u64,
    /// Names as the reference's logs have them, and values; in order.
    pub losses: Vec<(String, f32)>,
    pub lr: f64,
    /// Training images (of both domains) a second, lately.
    pub images_per_second: f64,
    /// What the iteration took.
    pub seconds: f64,
    /// Share of confident pixels; none without a teacher.
    pub pseudo_label_weight: Option<f32>,
    /// Anything else worth a key: skipped files, empty masks, …
    pub more: Map<String, Value>,
}

/// Fits a line of progress: the sum of the logged losses, that of each pass, the share of confident
/// pixels and the speed. The log has every term.
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
fn pass_of(name: &str) -> &'static str {
    match name.split_once('.').map_or("", |(prefix, _)| prefix) {
        "mix" | "mix_tss" | "mix_tst" => "mix",
        "masked" => "mask",
        _ if name.contains("feat_dist") => "feat",
        _ => "src",
    }
}

/// A log that is open for more lines.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Begins the log of a new run, whose first iteration is `first`.
    ///
    /// # Errors
    /// [`Error::Data`] when the file holds another run already; [`Error::Io`].
    pub fn create(path: impl AsRef<Path>, first: u64, config: &Config) -> Result<Self> {
        let path = path.as_ref();
        if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            let problem = "this folder holds a run already: continue it with --resume, \
                           or choose another folder with --out";
            return Err(Error::data(path, problem));
        }
        Log::open(path, first, config)
    }

    /// Continues the log of a run whose next iteration is `next`. What a killed run logged beyond its
    /// last checkpoint happens again: those lines go, as does a torn last one. A missing file is begun.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn resume(path: impl AsRef<Path>, next: u64, config: &Config) -> Result<Self> {
        let path = path.as_ref();
        match std::fs::read(path) {
            Ok(old) => {
                let kept = keep(&old, next);
                if kept != old {
                    write_atomic(path, |file| file.write_all(&kept))?;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(path, "read", e)),
        }
        Log::open(path, next, config)
    }

    fn open(path: &Path, next: u64, config: &Config) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|e| Error::io(path, "open", e))?;
        let mut log = Log { path: path.into(), file };
        let config = serde_json::to_value(config)
            .map_err(|e| Error::config(format!("the configuration cannot be logged: {e}")))?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let version = env!("CARGO_PKG_VERSION");
        log.line(&json!({
            "event": "start", "iteration": next, "version": version, "unix_time": time,
            "config": config,
        }))?;
        Ok(log)
    }

    /// One line for one iteration. A value that is not finite is `null`.
    ///
    /// # Errors
    /// [`Error::Io`].
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

    /// One line for an evaluation made when `iteration` iterations were done.
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

    /// A line of any other kind, at `iteration`.
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
        let text = format!("{value}\n");
        self.file.write_all(text.as_bytes()).map_err(|e| Error::io(&self.path, "write", e))
    }
}

/// The lines that a run resumed at iteration `next` still stands by.
fn keep(old: &[u8], next: u64) -> Vec<u8> {
    let mut kept = Vec::with_capacity(old.len());
    for line in old.split_inclusive(|&byte| byte == b'\n') {
        let whole = line.ends_with(b"\n");
        match serde_json::from_slice::<Value>(line) {
            Ok(value) if whole => {
                let at = value["iteration"].as_u64().unwrap_or(0);
                // An iteration's line counts from 0; an evaluation's says how many were done.
                if at < next || (at == next && value["event"] == "evaluation") {
                    kept.extend_from_slice(line);
                }
            }
            // Torn in the middle, by a disk that was full for a while: not ours to judge.
            Err(_) if whole => kept.extend_from_slice(line),
            _ => {}
        }
    }
    kept
}

/// All lines of a log, a torn last one left out.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] naming a line that is not JSON.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Value>> {
    let path = path.as_ref();
    let text = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
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
