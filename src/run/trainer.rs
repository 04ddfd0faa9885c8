//! The training loop: batches in, log and checkpoints out.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::evaluate::evaluate;
use super::inference::Predictor;
use super::log::{Iteration, Log};
use super::pictures::{Picture, save_comparison};
use super::progress::Progress;
use super::report::Report;
use super::signal::Stop;
use super::{build, checkpoint};
use crate::config::{Config, Method};
use crate::data::Batch;
use crate::data::eval::EvalSet;
use crate::data::loader::Loader;
use crate::device::Device;
use crate::uda::inputs::StepInputs;
use crate::uda::step::Learner;
use crate::{Error, Result};

/// What a run begins with.
#[derive(Clone, Debug)]
pub enum Start {
    /// `weights.init` of the configuration.
    Weights,
    /// The newest checkpoint in the run's folder, with all of its state.
    Resume,
    /// The student of a checkpoint, or of a file with the reference's names.
    Checkpoint(PathBuf),
}

/// How a run ended.
pub enum End {
    /// At `run.max_iters`, with the last evaluation where there is one.
    Finished(Option<Box<Report>>),
    /// Asked to stop, after saving.
    Stopped,
}

/// Iterations that the shown speed is averaged over.
const WINDOW: usize = 20;
/// Validation images saved beside prediction and label at the end of a run.
const PICTURES: usize = 8;
/// In a run's folder: the state before an iteration that produced a number that is not finite.
const NOT_FINITE: &str = "not_finite";

/// Runs training from `start` to `run.max_iters`, or until `stop` is asked.
pub fn train(config: &Config, start: Start, stop: &Stop) -> Result<End> {
    let device = build::device(config)?;
    let out = &config.run.out;
    let (mut learner, first) = match &start {
        Start::Weights => (build::learner(config, &device, None)?, 0),
        Start::Checkpoint(path) => (build::learner(config, &device, Some(path))?, 0),
        Start::Resume => {
            let path = checkpoint::resolve(out)?;
            let mut learner = build::learner(config, &device, Some(&path))?;
            let next = checkpoint::load(&path, &mut learner)?;
            (learner, next)
        }
    };
    // The log makes a folder a run's: only once everything that a run needs is there.
    let mut loader = Loader::new(config, first)?;
    let log_path = out.join("log.jsonl");
    let mut log = match start {
        Start::Resume => Log::resume(&log_path, first, config)?,
        _ => {
            // A run that saved nothing cannot go on: it makes room for the next attempt.
            if checkpoint::list(out).is_empty() && log_path.exists() {
                let aside = out.join("log.jsonl.old");
                std::fs::rename(&log_path, &aside)
                    .map_err(|e| Error::io(&log_path, "set aside", e))?;
            }
            Log::create(&log_path, config)?
        }
    };
    let mut progress = Progress::new("it", config.run.max_iters, first);
    progress.say(&format!("{} on {}", config_line(config), device.describe()));
    if config.feature_distance.enabled && !learner.config.feature_distance.enabled {
        progress.say("weights.init is random: the feature distance is off");
    }
    let mut recent = VecDeque::with_capacity(WINDOW);
    let mut last_report = None;
    for iteration in first..config.run.max_iters {
        let started = Instant::now();
        let batch = loader.next()?;
        let inputs = StepInputs::draw(config, iteration);
        let on_device = learner.upload(&batch)?;
        let report = learner.step(&on_device, &inputs, None)?;
        drop(on_device);
        if report.failed {
            let dump = out.join(NOT_FINITE);
            let saved =
                checkpoint::save(&checkpoint::path_of(&dump, iteration), &mut learner, iteration);
            return Err(not_finite(iteration, &report.terms, &batch, (&dump, saved)));
        }
        let seconds = started.elapsed().as_secs_f64();
        if recent.len() == WINDOW {
            recent.pop_front();
        }
        recent.push_back(seconds);
        let images = images_per_iteration(config) * recent.len() as f64;
        let line = Iteration {
            iteration,
            pseudo_label_weight: (report.terms.iter())
                .find(|(name, _)| name == "pseudo_label.weight")
                .map(|(_, value)| *value),
            losses: report.terms.into_iter().filter(|(name, _)| name.contains("loss")).collect(),
            lr: inputs.update.lr,
            images_per_second: images / recent.iter().sum::<f64>(),
            seconds,
            more: memory(&learner.device),
        };
        log.iteration(&line)?;
        progress.iteration(&line);

        let done = iteration + 1;
        let (last, stopping) = (done == config.run.max_iters, stop.asked());
        let due = |interval: u64| interval > 0 && (done.is_multiple_of(interval) || last);
        if due(config.run.checkpoint_interval) || stopping || last {
            checkpoint::save(&checkpoint::path_of(out, done), &mut learner, done)?;
            checkpoint::prune(out, config.run.keep)?;
        }
        if stopping && !last {
            progress.finish();
            return Ok(End::Stopped);
        }
        if due(config.run.eval_interval) {
            let pictures = last.then(|| out.join("pictures"));
            let mut report = validate(config, &learner, pictures.as_deref())?;
            report.iteration = Some(done);
            log.evaluation(done, &report)?;
            progress.say(&format!("iteration {done}: {}", report.summary()));
            last_report = Some(report);
        }
    }
    progress.finish();
    Ok(End::Finished(last_report.map(Box::new)))
}

/// Evaluates the student on the target's validation images; `pictures`: a folder for some of them.
fn validate(config: &Config, learner: &Learner, pictures: Option<&Path>) -> Result<Report> {
    let set = EvalSet::new(&config.target, config.eval.fit)?;
    let Learner { device, network, student, .. } = learner;
    let predictor = Predictor::new(device, network, student, &config.eval)?;
    let mut saved = 0;
    evaluate(device, &predictor, &set, config.network.classes, &|_, _| {}, &mut |sample, ids| {
        let Some(folder) = pictures.filter(|_| saved < PICTURES) else { return Ok(()) };
        if sample.fitted != sample.original() {
            return Ok(());
        }
        saved += 1;
        let (width, height) = (sample.fitted.width, sample.fitted.height);
        let picture = Picture { width, height, rgb: &sample.rgb };
        let path = folder.join(format!("{saved:02}.png"));
        save_comparison(path, picture, ids, Some(&sample.label.data))
    })
}

/// The most memory that tensors have taken up, and that this process has held, where the system
/// tells.
fn memory(device: &Device) -> serde_json::Map<String, serde_json::Value> {
    let peak = ("peak_device_bytes".to_string(), device.memory().peak.into());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let resident = kib.map(|kib| ("peak_resident_bytes".to_string(), (kib << 10).into()));
    std::iter::once(peak).chain(resident).collect()
}

fn images_per_iteration(config: &Config) -> f64 {
    let domains = if config.method == Method::SourceOnly { 1 } else { 2 };
    (domains * config.data.batch) as f64
}

fn config_line(config: &Config) -> String {
    let network = &config.network;
    let hrda = if network.hrda.enabled { "HRDA " } else { "" };
    format!("{:?}: {hrda}{} {}", config.method, network.head, network.backbone)
}

/// `dump`: where the state before the iteration was saved, and whether that worked.
fn not_finite(
    iteration: u64,
    terms: &[(String, f32)],
    batch: &Batch,
    (dump, saved): (&Path, Result<()>),
) -> Error {
    let bad: Vec<&str> =
        terms.iter().filter(|t| !t.1.is_finite()).map(|(name, _)| name.as_str()).collect();
    let what = if bad.is_empty() { "a gradient".into() } else { bad.join(", ") };
    let files: Vec<String> = (batch.source.files.iter().chain(&batch.target.files))
        .map(|file| file.display().to_string())
        .collect();
    let replay = match saved {
        Ok(()) => format!(
            "the state before it is saved: `--resume --out {}` runs it again",
            dump.display()
        ),
        Err(e) => format!("the state before it could not be saved: {e}"),
    };
    Error::NotFinite(format!(
        "iteration {iteration}: {what} is not finite; nothing of this iteration was kept\n\
         images: {}\n{replay}",
        files.join(", ")
    ))
}
