//! The training loop: reads batches, runs iterations, writes the log and checkpoints.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::best::Best;
use super::checkpoints::Checkpoints;
use super::group;
use super::initial_state;
use super::lock::FolderLock;
use super::log::{Iteration, LOG};
use super::records::{Records, is_evaluated};
use super::resume::{self, ResumeOptions};
use super::signal::Stop;
use super::tensorboard::Samples;
use super::whole_batch;
use crate::checkpoint::state::{self, Position};
use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::{files, identity};
use crate::config::Config;
use crate::data::Batch;
use crate::data::classes::Classes;
use crate::data::eval::EvalSet;
use crate::data::inventory::Inventory;
use crate::data::loader::Loader;
use crate::device::Device;
use crate::error::both;
use crate::file::atomic::remove_leftovers;
use crate::observer::Observer;
use crate::run::build;
use crate::run::eval::evaluate::measure;
use crate::run::eval::images::{ImageView, save_comparison};
use crate::run::eval::inference::Predictor;
use crate::run::eval::report::{Report, Subject};
use crate::tensor::Tensor;
use crate::uda::state::TrainingState;
use crate::uda::submit::PendingStep;
use crate::uda::trace::Trace;
use crate::{Error, Result};

/// The state that a run starts from.
#[derive(Clone, Debug)]
pub enum Start {
    /// The weights of the configuration key `weights.init`.
    Weights,
    /// The newest checkpoint in the run's folder, with its complete state.
    Resume(ResumeOptions),
    /// The student and optimizer moments of a checkpoint of this program or of the reference, or
    /// the student alone for plain weights. The first iteration is `iteration`, by default the
    /// checkpoint's own, or 0 if it has none.
    Checkpoint {
        /// The checkpoint, or a run's folder.
        path: PathBuf,
        /// The first iteration.
        iteration: Option<u64>,
    },
}

/// How a run ended.
pub enum End {
    /// The run reached `run.max_iters`; holds its last evaluation, if any.
    Finished(Option<Box<Report>>),
    /// The run had already finished.
    FinishedBefore,
    /// The run was asked to stop and saved its state.
    Stopped,
}

/// Number of iterations over which the reported throughput is averaged.
const WINDOW: usize = 20;
/// Number of validation images saved next to prediction and label at the end of a run.
const PICTURES: usize = 8;
/// Subfolder for dumps of the state before an iteration that produced a non-finite number.
const NOT_FINITE: &str = "not_finite";
/// The run's whole configuration, as it is now, with the origin of each value.
const CONFIG: &str = "config.toml";

/// The state of a run before its first iteration.
struct Begun {
    training: TrainingState,
    position: Position,
    /// What a new run starts from: a digest of its weights.
    start: String,
    /// Messages for the user.
    notes: Vec<String>,
    /// The lock on the run's folder if it is resumed; a new run takes it once all else is ready.
    lock: Option<FolderLock>,
}

/// A run in progress.
struct Run<'a> {
    config: &'a Config,
    training: TrainingState,
    position: Position,
    /// What it writes, in the process that does.
    records: Option<Records>,
    checkpoints: Checkpoints,
    best: Best,
    observer: &'a dyn Observer,
    /// When the last iteration, checkpoint or evaluation was finished.
    since: Instant,
    /// Durations of the last iterations, in seconds.
    recent: VecDeque<f64>,
    /// The number of iterations after which all processes of a group stop.
    stop_at: Option<u64>,
}

/// A submitted iteration with its batch, which is saved if the iteration fails.
struct Submitted {
    step: PendingStep,
    batch: Batch,
    /// The images that it is trained on, if they are shown.
    samples: Option<Samples>,
}

/// Trains from `start` to `run.max_iters`, or until `stop` is requested.
///
/// # Errors
/// Among others: [`Error::NotFinite`], after a dump for `udass-raw replay`; [`Error::Training`] if
/// more than `data.max_bad_files` files cannot be read; [`Error::Data`] if another process uses the
/// run's folder or it already holds a run; [`Error::Weights`] if a checkpoint does not fit.
pub fn train(config: &Config, start: Start, stop: &Stop, observer: &dyn Observer) -> Result<End> {
    train_on(&build::device(config)?, config, start, stop, observer)
}

/// Trains like [`train`], but on the given device instead of `device.kind`. If it has joined a group
/// ([`build::joined`]), all processes of the group call this with the same arguments; after an error,
/// the others wait until [`Device::abort_group`] ends them.
///
/// # Errors
/// The same as for [`train`].
pub fn train_on(
    device: &Device,
    config: &Config,
    start: Start,
    stop: &Stop,
    observer: &dyn Observer,
) -> Result<End> {
    let out = &config.run.out;
    let place = device.place();
    let observer = if place.leads() { observer } else { &() };
    let begun = begin(config, device, &start);
    let first = begun.as_ref().map_or(0, |begun| begun.position.next);
    let due = |interval: u64, done: u64| {
        interval > 0 && (done.is_multiple_of(interval) || done == config.run.max_iters)
    };
    // The previous process may have stopped before or during an evaluation that is due here.
    let owed = matches!(start, Start::Resume(_))
        && due(config.run.eval_interval, first)
        && !is_evaluated(out, first);
    if first >= config.run.max_iters && !owed {
        return begun.map(|_| End::FinishedBefore);
    }
    let validation = match config.run.eval_interval {
        0 => Ok(None),
        _ => EvalSet::new(&config.target, config.network.classes, config.eval.resize).map(Some),
    };
    let loader = Loader::sharing(config, first, place);
    let ((mut begun, validation), mut loader) = both(both(begun, validation), loader)?;
    let mut inventory = loader.inventory().clone();
    let pretrained = initial_state::pretrained(config);
    // The feature distance compares with these weights to the end of the run.
    if let Some(file) = pretrained.filter(|_| config.feature_distance.enabled) {
        inventory.add_whole("weights.init", file);
    }
    let data = inventory.summary();
    if let Start::Resume(options) = start {
        let note = resume::check_data(out, &begun.position, &inventory, options)?;
        begun.notes.extend(note);
    }
    if begun.position.run.is_empty() {
        begun.position.run = resume::new_run(config, &data, &begun.start)?;
    }
    begun.position.data = data;
    group::check_run(device, config, first, &begun.position.data)?;
    let resumes = matches!(start, Start::Resume(_));
    let files = [(CONFIG, config.explained()?), (resume::DATA, inventory.to_text())];
    let open = || Records::open(config, device, &begun.position, resumes, begun.lock.take(), files);
    let records = if place.leads() { Some(open()?) } else { None };
    // The others read the log only now, without what is lost of an interrupted run.
    group::meet(device)?;
    let Begun { training, position, notes, .. } = begun;
    observer.begin(first as usize, config.run.max_iters as usize);
    let processes = match place.size {
        1 => String::new(),
        size => format!(", in {size} processes"),
    };
    observer.message(&format!("{} on {}{processes}", config_line(config), device.describe()));
    let data = loader.note().into_iter().chain(validation.as_ref().and_then(|set| set.note()));
    let notes = config.notes.lines().iter().chain(&notes).map(String::as_str).chain(data);
    let lock = records.as_ref().and_then(Records::note);
    notes.chain(lock).for_each(|note| observer.message(note));
    if config.feature_distance.enabled && !training.config.feature_distance.enabled {
        observer.message("weights.init is random, so the feature distance is disabled");
    }
    let (since, recent) = (Instant::now(), VecDeque::with_capacity(WINDOW));
    let best = Best::of_log(&out.join(LOG), config.source.layout == "synthia")?;
    let checkpoints = Checkpoints::find(config, &position, place.leads())?;
    let mut run = Run {
        config,
        training,
        position,
        records,
        checkpoints,
        best,
        observer,
        since,
        recent,
        stop_at: None,
    };
    let mut last_report = None;
    if let Some(set) = validation.as_ref().filter(|_| owed) {
        last_report = run.evaluation(set, first, stop)?;
    }
    let mut pending: Option<Submitted> = None;
    for iteration in first..config.run.max_iters {
        // Submit this iteration while the device may still run the previous one, then report that.
        let next = loader.next().and_then(|batch| run.submit(batch, iteration, stop));
        pending.take().map_or(Ok(()), |before| run.finish(before))?;
        let next = pending.insert(next?);
        run.count_skipped(&next.batch)?;

        let done = iteration + 1;
        let (last, stopping) = (done == config.run.max_iters, run.stops(done, stop));
        let saving = due(config.run.checkpoint_interval, done) || stopping || last;
        let evaluating = !stopping && due(config.run.eval_interval, done);
        if !saving && !evaluating && !next.step.is_done()? {
            continue;
        }
        pending.take().map_or(Ok(()), |next| run.finish(next))?;
        if saving {
            run.save()?;
        }
        if let Some(set) = validation.as_ref().filter(|_| evaluating) {
            last_report = run.evaluation(set, done, stop)?;
        }
        if run.stops(done, stop) && !last {
            if !saving {
                run.save()?;
            }
            return Ok(End::Stopped);
        }
    }
    Ok(End::Finished(last_report.map(Box::new)))
}

impl Run<'_> {
    /// Returns whether the run stops after `done` iterations. A group stops when all of it can know.
    fn stops(&self, done: u64, stop: &Stop) -> bool {
        match self.training.device.place().size {
            1 => stop.asked(),
            _ => self.stop_at.is_some_and(|at| done >= at),
        }
    }

    fn submit(&mut self, batch: Batch, iteration: u64, stop: &Stop) -> Result<Submitted> {
        if stop.asked() {
            self.training.ask_to_stop();
        }
        if !self.is_shown(iteration) {
            let step = self.training.submit(&batch, iteration)?;
            return Ok(Submitted { step, batch, samples: None });
        }
        self.training.load(&batch)?;
        let inputs = self.training.draw(iteration);
        let device = self.training.device.clone();
        let mut samples = Samples::default();
        let mut see = |name: &str, tensor: &Tensor| samples.see(&device, name, tensor);
        match self.training.submit_with(&inputs, Trace::brief(&mut see)) {
            // The iteration itself may have enough memory.
            Err(Error::OutOfMemory(_)) => {
                let step = self.training.submit_with(&inputs, Trace::off())?;
                self.observer.message(&format!(
                    "iteration {iteration}: too little memory for its images, which are left out"
                ));
                Ok(Submitted { step, batch, samples: None })
            }
            step => Ok(Submitted { step: step?, batch, samples: Some(samples) }),
        }
    }

    /// Returns whether the images of an iteration are shown: of the first one of a run, and then at
    /// an interval.
    fn is_shown(&self, iteration: u64) -> bool {
        let interval = self.config.run.image_interval;
        let due = interval > 0 && (iteration == 0 || (iteration + 1).is_multiple_of(interval));
        due && self.config.run.tensorboard
    }

    /// Waits for an iteration and logs its report. If the iteration failed, its state is dumped and
    /// the run ends with an error.
    fn finish(&mut self, submitted: Submitted) -> Result<()> {
        let Submitted { step, batch, samples } = submitted;
        let (iteration, lr) = (step.iteration, step.learning_rate);
        let report = self.training.wait(step)?;
        if report.failed {
            let out = &self.config.run.out;
            let dump = out.join(NOT_FINITE).join(format!("iteration_{iteration:06}.safetensors"));
            let batch = whole_batch::gather(&self.training.device, &batch)?;
            let saved = state::save(&dump, &mut self.training, &self.position, Some(&batch));
            // The others would end the group while the first one still writes.
            group::meet(&self.training.device)?;
            return Err(not_finite(iteration, &report.terms, &batch, (&dump, saved)));
        }
        if report.stop {
            // A process may have submitted the next iteration before it reads this report.
            self.stop_at.get_or_insert(iteration + 2);
        }
        let seconds = self.elapsed();
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(seconds);
        let images = images_per_iteration(self.config) * self.recent.len() as f64;
        let line = Iteration {
            iteration,
            pseudo_label_weight: (report.terms.iter())
                .find(|(name, _)| name == "pseudo_label.weight")
                .map(|(_, value)| *value),
            losses: report.terms.into_iter().filter(|(name, _)| name.contains("loss")).collect(),
            lr,
            images_per_second: images / self.recent.iter().sum::<f64>(),
            seconds,
            more: memory(&self.training.device),
        };
        if let Some(records) = &mut self.records {
            records.iteration(&line, samples.as_ref(), self.observer)?;
        }
        let total = self.config.run.max_iters as usize;
        self.observer.advance(iteration as usize + 1, total, &line.to_string());
        self.position.next = iteration + 1;
        Ok(())
    }

    /// Counts the files that were skipped while the batch was loaded, and reports new ones.
    fn count_skipped(&mut self, batch: &Batch) -> Result<()> {
        let most = self.config.data.max_bad_files;
        for bad in &batch.skipped {
            let Some(count) = group::count_skipped(&mut self.position, bad, most)? else {
                continue;
            };
            if let Some(records) = &mut self.records {
                records.skipped(batch.iteration, &bad.path, &bad.problem, count)?;
            }
            self.observer.message(&format!("skipped ({count} of at most {most}): {}", bad.problem));
        }
        Ok(())
    }

    /// Counts the files that other processes skipped, which this one learns only now.
    fn count_skipped_by_others(&mut self) -> Result<()> {
        let (most, device) = (self.config.data.max_bad_files, &self.training.device);
        let new = group::gather_skipped(device, &mut self.position)?;
        let count = self.position.skipped.len();
        for file in new {
            let problem = "skipped by another process";
            if let Some(records) = &mut self.records {
                records.skipped(self.position.next, &file, problem, count)?;
            }
            self.observer.message(&format!("{problem} ({count} so far): {}", file.display()));
        }
        match count > most {
            true => Err(Error::Training(format!(
                "{count} files were skipped, and at most {most} may be (data.max_bad_files)"
            ))),
            false => Ok(()),
        }
    }

    fn save(&mut self) -> Result<()> {
        if let Some(records) = &mut self.records {
            records.sync(self.observer)?;
        }
        group::check_state(&self.training, self.position.next)?;
        self.count_skipped_by_others()?;
        self.checkpoints.save(&mut self.training, &self.position)?;
        self.elapsed();
        Ok(())
    }

    /// Evaluates, then logs and reports the result; returns `None` if the run is asked to stop
    /// meanwhile.
    fn evaluation(&mut self, set: &EvalSet, done: u64, stop: &Stop) -> Result<Option<Report>> {
        let last = done == self.config.run.max_iters;
        let images = (last && self.training.device.place().leads())
            .then(|| self.config.run.out.join("pictures"));
        let training = &self.training;
        // Between two iterations, the memory of the iterations is free for the evaluation.
        let validated = (training.device)
            .graph_private(|| validate(self.config, training, set, done, images.as_deref(), stop));
        let report = match validated {
            Err(_) if stop.asked() && training.device.place().size == 1 => return Ok(None),
            other => other?,
        };
        // What is logged is not evaluated again, so the best checkpoint must be there by then.
        let kept = self.config.run.keep_best && self.best.is_improved_by(&report);
        if kept {
            self.keep_best(done)?;
        }
        if let Some(records) = &mut self.records {
            records.evaluation(done, &report, self.observer)?;
        }
        let remark = if kept { ", the best so far" } else { "" };
        self.observer.message(&format!("iteration {done}{remark}: {}", report.summary()));
        self.elapsed();
        Ok(Some(report))
    }

    fn keep_best(&mut self, done: u64) -> Result<()> {
        if !self.checkpoints.keep_as_best(done)? {
            self.save()?;
            self.checkpoints.keep_as_best(done)?;
        }
        Ok(())
    }

    /// Returns the seconds since the last call.
    fn elapsed(&mut self) -> f64 {
        let before = std::mem::replace(&mut self.since, Instant::now());
        (self.since - before).as_secs_f64()
    }
}

fn begin(config: &Config, device: &Device, start: &Start) -> Result<Begun> {
    let at = |next| Position { next, ..Position::default() };
    Ok(match start {
        Start::Weights => {
            let training = initial_state::build(config, device, None)?;
            let mut from = Inventory::default();
            if let Some(file) = initial_state::pretrained(config) {
                from.add_whole("weights.init", file);
            }
            let start = from.to_text();
            Begun { training, position: at(0), start, notes: Vec::new(), lock: None }
        }
        Start::Checkpoint { path, iteration } => {
            let file = files::open(path)?;
            let first = first_iteration(config, &file, *iteration)?;
            let mut training = initial_state::build(config, device, Some(&file))?;
            let mut notes: Vec<String> = file.skipped_note().into_iter().collect();
            if !state::begin(&file, &mut training, first)? {
                notes.push(format!(
                    "{}: has no optimizer moments, so they start at zero",
                    path.display()
                ));
            }
            let start = file.digest()?;
            Begun { training, position: at(first), start, notes, lock: None }
        }
        Start::Resume(options) => {
            let out = &config.run.out;
            // Lock before looking for the newest checkpoint: another run may be writing a newer
            // one.
            let locks = device.place().leads() && out.is_dir();
            let lock = if locks { Some(FolderLock::take(out)?) } else { None };
            let (file, notes) = resume::open(out, *options)?;
            resume::check_configuration(&initial_state::effective(config), &file)?;
            let mut training = initial_state::build(config, device, Some(&file))?;
            let position = state::load(&file, &mut training)?;
            resume::check_log(&out.join(LOG), &file, &position)?;
            if device.place().leads() {
                remove_leftovers(&files::folder(out))?;
            }
            Begun { training, position, start: String::new(), notes, lock }
        }
    })
}

/// Returns the first iteration of a run that starts from a checkpoint: `iteration`, or the
/// checkpoint's own.
pub(super) fn first_iteration(
    config: &Config,
    file: &TensorFile,
    iteration: Option<u64>,
) -> Result<u64> {
    let first = iteration.or(identity::iteration(file)?).unwrap_or(0);
    if first < config.run.max_iters {
        return Ok(first);
    }
    Err(Error::config(format!(
        "{}: starts at iteration {first}, but run.max_iters = {}; --start-iteration 0 uses only \
         its weights",
        file.path().display(),
        config.run.max_iters
    )))
}

/// Evaluates the student on the target's validation images after `done` iterations. A few
/// predictions are saved to the folder `images`, if given.
fn validate(
    config: &Config,
    training: &TrainingState,
    set: &EvalSet,
    done: u64,
    images: Option<&Path>,
    stop: &Stop,
) -> Result<Report> {
    let classes = Classes::new(&config.dataset);
    let TrainingState { device, network, student, .. } = training;
    let predictor = Predictor::new(device, network, student, &config.eval)?;
    let subject = Subject { iteration: Some(done), ..Subject::default() };
    let mut saved = 0;
    measure(config, subject, &predictor, set, &(), &mut |sample, ids, _| {
        // A group stops together, after its next iterations.
        if stop.asked() && device.place().size == 1 {
            return Err(Error::Training("asked to stop".into()));
        }
        let Some(folder) = images.filter(|_| saved < PICTURES) else { return Ok(()) };
        if sample.fitted != sample.original() {
            return Ok(());
        }
        saved += 1;
        let (width, height) = (sample.fitted.width, sample.fitted.height);
        let image = ImageView { width, height, rgb: &sample.rgb };
        let path = folder.join(format!("{saved:02}.png"));
        save_comparison(path, image, ids, Some(&sample.label.data), &classes)
    })
}

/// Returns the peak device memory and, if the system reports it, the peak resident memory of this
/// process.
fn memory(device: &Device) -> serde_json::Map<String, Value> {
    let peak = ("peak_device_bytes".to_string(), device.memory().peak.into());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let resident = kib.map(|kib| ("peak_resident_bytes".to_string(), (kib << 10).into()));
    std::iter::once(peak).chain(resident).collect()
}

fn images_per_iteration(config: &Config) -> f64 {
    let domains = if config.learns_from_target() { 2 } else { 1 };
    (domains * config.data.batch) as f64
}

fn config_line(config: &Config) -> String {
    let (network, title) = (&config.network, config.stages().title());
    let hrda = if network.hrda.enabled && title != "HRDA" { "HRDA " } else { "" };
    format!("{title}: {hrda}{} {}", network.head, network.backbone)
}

/// Builds the error for a non-finite iteration. `dump` is the path of the saved state, and `saved`
/// the result of saving it.
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
            "they are saved with the state before this iteration: `udass-raw replay {}` runs it \
             again",
            dump.display()
        ),
        Err(e) => format!("the state before it could not be saved: {e}"),
    };
    Error::NotFinite(format!(
        "iteration {iteration}: {what} is not finite; the state from before it was kept\n\
         images: {}\n{replay}",
        files.join(", ")
    ))
}
