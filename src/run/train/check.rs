//! Checks everything that a run will need before it trains: device, folder, data, weights, memory
//! and free disk.

use std::path::{Path, PathBuf};

use super::initial_state;
use super::resume;
use super::trainer::{Start, first_iteration};
use crate::checkpoint::{files, state};
use crate::config::Config;
use crate::data::eval::EvalSet;
use crate::data::loader::Loader;
use crate::data::toy;
use crate::device::Device;
use crate::file::free_space;
use crate::run::build;
use crate::run::eval::inference::{Pixels, Predictor};
use crate::run::eval::memory as eval_memory;
use crate::run::profile::Synthetic;
use crate::uda::memory as training_memory;
use crate::{Error, Result};

/// A generous length of an iteration's line in the log, in bytes.
const LINE: u64 = 2 << 10;

/// One thing that a run needs.
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// What was found, or what is wrong with it.
    pub result: Result<String>,
}

/// Checks what a run from `start` needs, and trains nothing. What one finding lacks does not hide
/// the others. Nothing is written or locked.
pub fn check(config: &Config, start: &Start) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |what, result: Result<String>| findings.push(Finding { what, result });
    let device = build::device(config);
    found("device", device.as_ref().map(Device::describe).map_err(repeated));
    found("folder", folder(&config.run.out, start));
    let first = weights(config, start);
    let next = first.as_ref().map_or(0, |(next, _)| *next);
    found("weights", first.map(|(_, told)| told));
    match toy::is_missing(&config.data.toy) {
        true => found("data", Ok(missing_toy(config))),
        false => {
            found("data", training_data(config, next));
            found("validation", validation_data(config));
        }
    }
    match planned(config) {
        Ok(plan) => {
            // Without a device, nobody knows what it has.
            if let Ok(device) = &device {
                found("memory", memory(config, device, &plan));
            }
            found("disk", disk(config, start, next, plan.checkpoint));
        }
        Err(error) => found("memory", Err(error)),
    }
    findings
}

/// Returns an error of the same kind and text.
fn repeated(error: &Error) -> Error {
    Error::device(error.to_string())
}

fn folder(out: &Path, start: &Start) -> Result<String> {
    let saved = files::list(out).len();
    let there = out.join(super::log::LOG).metadata().is_ok_and(|file| file.len() > 0);
    let resumes = matches!(start, Start::Resume(_));
    if !resumes && (saved > 0 || files::best(out).exists()) {
        let problem = "this folder already contains a run: continue it with --resume, or choose \
                       another folder with --out";
        return Err(Error::data(out, problem));
    }
    let existing = existing(out);
    let writable = existing.metadata().map_err(|e| Error::io(existing, "read", e))?;
    if !writable.is_dir() {
        return Err(Error::data(existing, "is no folder: choose another one with --out"));
    }
    crate::file::check_writable(existing).map_err(|e| Error::io(existing, "write to", e))?;
    let shown = out.display();
    Ok(match (resumes, there) {
        (true, _) => format!("{shown}, to be continued from {saved} checkpoint(s)"),
        (false, true) => format!("{shown}, whose log without a checkpoint will be set aside"),
        (false, false) => format!("{shown}, new"),
    })
}

/// Returns the path, or the innermost folder above it that exists.
fn existing(path: &Path) -> &Path {
    let mut above = path.ancestors().filter(|above| !above.as_os_str().is_empty());
    above.find(|above| above.exists()).unwrap_or(Path::new("."))
}

/// Loads the weights that the run starts from, without a device. Returns the first iteration.
fn weights(config: &Config, start: &Start) -> Result<(u64, String)> {
    let device = Device::dry(build::precision(config)?);
    match start {
        Start::Weights => {
            initial_state::build(config, &device, None)?;
            let told = match initial_state::pretrained(config) {
                Some(file) => format!("the backbone's, from {}", file.display()),
                None => "random".into(),
            };
            Ok((0, told))
        }
        Start::Checkpoint { path, iteration } => {
            let file = files::open(path)?;
            let first = first_iteration(config, &file, *iteration)?;
            initial_state::build(config, &device, Some(&file))?;
            Ok((first, format!("{}, from iteration {first}", file.path().display())))
        }
        Start::Resume(options) => {
            let (file, _) = resume::open(&config.run.out, *options)?;
            resume::check_configuration(&initial_state::effective(config), &file)?;
            let mut training = initial_state::build(config, &device, Some(&file))?;
            let position = state::load(&file, &mut training)?;
            Ok((position.next, format!("{}, whole", file.path().display())))
        }
    }
}

fn missing_toy(config: &Config) -> String {
    format!("training generates the toy world in {} first", config.data.toy.display())
}

/// Lists the training data, and reads the first batch.
fn training_data(config: &Config, first: u64) -> Result<String> {
    let mut loader = Loader::new(config, first)?;
    let lists = loader.inventory().summary();
    let counts = lists.iter().map(|(list, (count, _))| format!("{count} {list}"));
    let told = counts.collect::<Vec<_>>().join(", ");
    let batch = loader.next()?;
    if batch.skipped.len() > config.data.max_bad_files {
        let bad: Vec<&str> = batch.skipped.iter().map(|bad| bad.problem.as_str()).collect();
        return Err(Error::Training(format!("the first batch: {}", bad.join("; "))));
    }
    let note = loader.note().map_or(String::new(), |note| format!("; {note}"));
    Ok(format!("{told}; the first batch is readable{note}"))
}

fn validation_data(config: &Config) -> Result<String> {
    if config.run.eval_interval == 0 {
        return Ok("none (run.eval_interval = 0)".into());
    }
    let set = EvalSet::new(&config.target, config.network.classes, config.eval.resize)?;
    set.iter()?.next().transpose()?;
    Ok(format!("{} images; the first is readable", set.len()))
}

/// What a run will take.
struct Plan {
    /// The most bytes that tensors take at once, in iterations and in evaluations between them.
    iterations: usize,
    evaluation: usize,
    /// Bytes of a checkpoint.
    checkpoint: u64,
}

/// Runs iterations and an evaluation on a device that computes nothing.
fn planned(config: &Config) -> Result<Plan> {
    let device = Device::dry(build::precision(config)?);
    let mut training = Synthetic::new(&device, config)?;
    for _ in 0..2 {
        training.step()?;
    }
    let iterations = device.memory().peak;
    let training = training.state_mut();
    let checkpoint = state::bytes(training)? as u64;
    device.reset_peak_memory();
    if config.run.eval_interval > 0 {
        let predictor =
            Predictor::new(&device, &training.network, &training.student, &config.eval)?;
        let [width, height] = config.eval.resize;
        let image = vec![0; 3 * width * height];
        let logits = predictor.logits_in_memory(&[Pixels::Bytes(&image)], width, height)?;
        predictor.classes(&logits, (height, width))?;
    }
    Ok(Plan { iterations, evaluation: device.memory().peak, checkpoint })
}

fn memory(config: &Config, device: &Device, plan: &Plan) -> Result<String> {
    let total = device.total_memory()?.map(|total| (total, "the device's memory"));
    let room = device.available_memory().into_iter().chain(total).min();
    let fits = |what: &str, needed: usize| match room {
        Some((left, whose)) if left < needed => Err(Error::OutOfMemory(format!(
            "the tensors of {what} take {} MiB, but {} MiB are left of {whose}",
            needed >> 20,
            left >> 20
        ))),
        _ => Ok(()),
    };
    let trains = fits("an iteration", plan.iterations);
    training_memory::with_advice(trains, config, config.device.cuda_graph)?;
    eval_memory::with_advice(fits("an evaluation", plan.evaluation), &config.eval)?;
    let left = room.map_or(String::new(), |(left, whose)| {
        format!(", and {} MiB are left of {whose}", left >> 20)
    });
    let needed = plan.iterations.max(plan.evaluation);
    Ok(format!("tensors take {} MiB{left}", needed >> 20))
}

/// Compares what checkpoints and log will take with what is free.
fn disk(config: &Config, start: &Start, first: u64, checkpoint: u64) -> Result<String> {
    let run = &config.run;
    let left = run.max_iters.saturating_sub(first);
    let saved = left.div_ceil(run.checkpoint_interval.max(1));
    // One more is written before the oldest is removed, and the best one stays.
    let best = u64::from(run.keep_best && run.eval_interval > 0);
    let kept = if run.keep == 0 { saved } else { saved.min(run.keep as u64 + 1) } + best;
    let there = match start {
        Start::Resume(_) => files::list(&run.out).len() as u64,
        _ => 0,
    };
    let new = kept.saturating_sub(there);
    let needed = new * checkpoint + left * LINE;
    let place: PathBuf = existing(&run.out).into();
    let free = free_space(&place).map_err(|e| Error::io(&place, "ask for the free space of", e))?;
    let told = format!("{new} checkpoint(s) of {} MiB and the log", checkpoint >> 20);
    if free < needed {
        return Err(Error::data(
            &place,
            format!(
                "{told} need {} MiB, but {} MiB are free: run.keep = {} says how many are kept",
                needed >> 20,
                free >> 20,
                run.keep
            ),
        ));
    }
    Ok(format!("{told} take {} MiB of {} MiB that are free", needed >> 20, free >> 20))
}
