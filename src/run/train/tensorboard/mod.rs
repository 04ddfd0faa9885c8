//! Event files for TensorBoard, next to the log: the log's numbers, and images of what the networks
//! are trained on.
//!
//! A step is a number of iterations done. Each start of a run begins a new file, whose first records
//! tell readers to drop what earlier files hold of the steps that run again. Nothing here ends a
//! run: after an error, its files end, and [`TensorBoard::take_note`] says why.

mod message;
mod read;
mod record;
mod samples;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::log::Iteration;
use crate::config::Config;
use crate::data::classes::Classes;
use crate::error::Error;
use crate::run::eval::report::Report;

use message::{Event, Histogram, Image, START, SessionLog, Summary, Value};
pub use read::{SavedImage, last_images};
pub use samples::{Picture, Samples};

/// How the names of event files begin; then come the time in seconds, machine and process.
const PREFIX: &str = "events.out.tfevents.";

/// Writes a run's event file.
pub struct TensorBoard {
    path: PathBuf,
    /// `None` if there is none, or after an error.
    file: Option<File>,
    note: Option<String>,
    /// The factor of each group's learning rate, with its name.
    rates: Vec<(String, f64)>,
    classes: Classes,
}

impl TensorBoard {
    /// Begins an event file in the run's folder, unless `run.tensorboard` is off. `resumed` is the
    /// next iteration of a run that continues; a new run replaces all that the folder's event files
    /// hold.
    pub fn open(config: &Config, resumed: Option<u64>) -> TensorBoard {
        let folder = &config.run.out;
        let others = config.optimizer.param_groups.iter().filter(|group| group.lr_mult != 1.0);
        let rates = std::iter::once(("base".to_owned(), 1.0))
            .chain(others.map(|group| (group.contains.clone(), group.lr_mult)));
        let mut board = TensorBoard {
            path: folder.join(name(folder)),
            file: None,
            note: None,
            rates: rates.collect(),
            classes: Classes::new(&config.dataset),
        };
        if !config.run.tensorboard {
            return board;
        }
        match File::create_new(&board.path) {
            Ok(file) => board.file = Some(file),
            Err(e) => board.fail("create", e),
        }
        let version = Some("brain.Event:2".to_owned());
        board.write(&Event { file_version: version, ..Event::default() });
        // The last iteration that was done, and the evaluation after it, stay.
        let step = resumed.map_or(0, |next| next as i64 + 1);
        let session_log = Some(SessionLog { status: START });
        board.write(&Event { step, session_log, ..Event::default() });
        board
    }

    /// Writes the numbers of an iteration.
    pub fn iteration(&mut self, it: &Iteration) {
        if self.file.is_none() {
            return;
        }
        let total: f32 = it.losses.iter().map(|(_, loss)| loss).sum();
        let mut values = vec![scalar("loss/total", f64::from(total))];
        let losses = it.losses.iter();
        values.extend(losses.map(|(name, loss)| scalar(format!("loss/{name}"), f64::from(*loss))));
        let rates = self.rates.iter();
        values
            .extend(rates.map(|(n, factor)| scalar(format!("learning_rate/{n}"), it.lr * factor)));
        let share = it.pseudo_label_weight;
        values.extend(share.map(|share| scalar("pseudo_label/confident_share", f64::from(share))));
        values.push(scalar("speed/images_per_second", it.images_per_second));
        values.push(scalar("speed/seconds_per_iteration", it.seconds));
        let more = it.more.iter().filter_map(|(name, value)| Some((name, value.as_f64()?)));
        values.extend(more.map(|(name, value)| scalar(format!("memory/{name}"), value)));
        self.summary(it.iteration + 1, values);
    }

    /// Writes the images that iteration `iteration` was trained on, and the histogram of the
    /// teacher's confidences.
    pub fn samples(&mut self, iteration: u64, samples: &Samples) {
        if self.file.is_none() {
            return;
        }
        let images: io::Result<Vec<Value>> =
            samples.pictures(&self.classes).map(|picture| image(&picture)).collect();
        match images {
            Ok(images) => {
                let histogram = samples.confidences().and_then(histogram);
                self.summary(iteration + 1, histogram.into_iter().chain(images).collect());
            }
            Err(e) => self.fail("write", e),
        }
    }

    /// Writes the result of an evaluation after `done` iterations.
    pub fn evaluation(&mut self, done: u64, report: &Report) {
        let confusion = &report.confusion;
        let mut values = vec![
            scalar("validation/mIoU", confusion.mean_iou()),
            scalar("validation/aAcc", confusion.all_accuracy()),
        ];
        let synthia = report.synthia();
        values.extend(synthia.map(|(n, mean)| scalar(format!("validation/mIoU{n}"), mean)));
        let classes = confusion.iou().into_iter().enumerate();
        // A class that occurs nowhere has no IoU.
        let classes = classes.filter(|(_, iou)| iou.is_finite());
        values.extend(
            classes.map(|(class, iou)| scalar(format!("IoU/{}", report.classes.name(class)), iou)),
        );
        self.summary(done, values);
    }

    /// Makes what was written durable, like the log.
    pub fn sync(&mut self) {
        if let Some(Err(e)) = self.file.as_ref().map(File::sync_data) {
            self.fail("write", e);
        }
    }

    /// Returns why the event file has ended before the run, once.
    pub fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    fn summary(&mut self, step: u64, value: Vec<Value>) {
        let summary = Some(Summary { value });
        self.write(&Event { step: step as i64, summary, ..Event::default() });
    }

    /// Writes an event with the time. Each is one write, so that a killed run leaves at most the last
    /// one incomplete.
    fn write(&mut self, event: &Event) {
        let Some(file) = &mut self.file else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event { wall_time: time.as_secs_f64(), ..event.clone() };
        if let Err(e) = file.write_all(&record::framed(&event.encode_to_vec())) {
            self.fail("write", e);
        }
    }

    fn fail(&mut self, action: &'static str, e: io::Error) {
        self.file = None;
        let error = Error::io(&self.path, action, e);
        self.note = Some(format!(
            "warning: {error}; TensorBoard gets no more of this run until it is resumed, \
             log.jsonl has it all"
        ));
    }
}

/// Returns the name of a new event file. TensorBoard reads them in the order of their names, so it
/// comes after all that are there, even if the clock was set back.
fn name(folder: &Path) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let last = files(folder).iter().filter_map(|file| seconds(file)).max();
    let seconds = last.map_or(now, |last| now.max(last.saturating_add(1)));
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let machine: String = machine.trim().chars().filter(plain).take(64).collect();
    format!("{PREFIX}{seconds:010}.{machine}.{}.0", std::process::id())
}

/// Returns a folder's event files in the order in which they were begun.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| seconds(path).is_some()).collect();
    files.sort();
    files
}

/// Returns the time in the name of an event file.
fn seconds(path: &Path) -> Option<u64> {
    let rest = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    rest.split('.').next()?.parse().ok()
}

fn scalar(tag: impl Into<String>, value: f64) -> Value {
    Value { tag: tag.into(), simple_value: Some(value as f32), ..Value::default() }
}

/// Number of buckets of the histogram of confidences, from 0 to 1.
const BUCKETS: usize = 50;

/// Returns the histogram of the values that are finite; `None` if none is.
fn histogram(confidences: &[f32]) -> Option<Value> {
    let mut counts = [0.0; BUCKETS];
    let mut histo =
        Histogram { min: f64::INFINITY, max: f64::NEG_INFINITY, ..Histogram::default() };
    for value in confidences.iter().map(|&value| f64::from(value)).filter(|v| v.is_finite()) {
        histo.min = histo.min.min(value);
        histo.max = histo.max.max(value);
        histo.num += 1.0;
        histo.sum += value;
        histo.sum_squares += value * value;
        let bucket = (value * BUCKETS as f64).ceil() as usize;
        counts[bucket.clamp(1, BUCKETS) - 1] += 1.0;
    }
    // Readers take the least value for the lower end of the first bucket.
    let first = counts.iter().position(|&count| count > 0.0)?;
    let last = counts.iter().rposition(|&count| count > 0.0)?;
    histo.bucket = counts[first..=last].to_vec();
    histo.bucket_limit = (first..=last).map(|i| (i + 1) as f64 / BUCKETS as f64).collect();
    Some(Value { tag: "pseudo_label/confidence".into(), histo: Some(histo), ..Value::default() })
}

fn image(picture: &Picture) -> io::Result<Value> {
    let [height, width] = [picture.height, picture.width].map(|side| side as i32);
    let encoded_image_string = picture.png().map_err(io::Error::other)?;
    let image = Some(Image { height, width, colorspace: 3, encoded_image_string });
    Ok(Value { tag: format!("images/{}", picture.name), image, ..Value::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_the_buckets_that_hold_something() {
        let histo = histogram(&[0.5, 0.41, f32::NAN, 0.505, 0.5]).unwrap().histo.unwrap();
        assert_eq!(histo.bucket, [1.0, 0.0, 0.0, 0.0, 2.0, 1.0]);
        let expected = [0.42, 0.44, 0.46, 0.48, 0.5, 0.52];
        assert_eq!(histo.bucket_limit, expected);
        assert_eq!((histo.min, histo.num), (f64::from(0.41f32), 4.0));
        let histo = histogram(&[0.0, 1.0]).unwrap().histo.unwrap();
        assert_eq!((histo.bucket.len(), histo.bucket[0], histo.bucket[49]), (BUCKETS, 1.0, 1.0));
        assert!(histogram(&[f32::NAN]).is_none() && histogram(&[]).is_none());
    }

    #[test]
    fn a_new_file_comes_after_all_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let first = name(folder.path());
        assert!(first.starts_with("events.out.tfevents.1") && !first.contains(' '), "{first}");
        fs::write(path("events.out.tfevents.9999999998.host.1.0"), "").unwrap();
        fs::write(path("events.out.tfevents.mine"), "").unwrap();
        assert!(name(folder.path()).starts_with("events.out.tfevents.9999999999."));
        assert_eq!(files(folder.path()).len(), 1);
    }
}
