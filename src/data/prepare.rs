//! Preparation of a downloaded data set: labels as train ids, and how often each class occurs.
//!
//! The files have the names and form of the released tools, so that a folder prepared by either
//! serves both.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::{
    config::{Config, FILES},
    data::{
        labels::{LabelFile, Plane, TRAIN_IDS, check_size, encode},
        layouts::{self, Files, Layout, RawLabel},
        picture,
        sampling::{CLASS_STATS, CLASS_STATS_DICT, FileStats, SAMPLES_WITH_CLASS},
    },
    error::{Error, Result},
    observer::Observer,
};

/// What a preparation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Labels converted now.
    pub written: usize,
    /// Labels that were there already, newer than what they are made from and readable, or that are
    /// read as they are.
    pub kept: usize,
    /// Pixels of each class that occurs in the labels that count, by class.
    pub pixels: Vec<(u8, u64)>,
}

/// Problems that one error message lists.
const LISTED: usize = 5;

/// Writes a train-id label beside every label below `root`, the statistics, and the layout's lists.
///
/// Runs on all cores. Every file is replaced whole, so that it can be interrupted and run again;
/// labels already converted are then read instead.
///
/// # Errors
/// Folders are missing, or labels are damaged, hold ids out of range or differ in size from their
/// image: all labels are looked at, and the first few problems listed. The statistics are then not
/// written.
pub fn prepare(layout: &dyn Layout, root: &Path, observer: &dyn Observer) -> Result<Prepared> {
    let labels = layout.raw_labels(root)?;
    let done = AtomicUsize::new(0);
    let converted: Vec<Result<Converted>> = labels
        .par_iter()
        .map(|label| {
            let converted = convert(label);
            observer.advance(done.fetch_add(1, Ordering::Relaxed) + 1, labels.len(), "");
            converted
        })
        .collect();

    let mut prepared = Prepared::default();
    let (mut stats, mut problems) = (Vec::new(), Vec::new());
    for converted in converted {
        match converted {
            Ok(converted) => {
                prepared.written += converted.written as usize;
                prepared.kept += !converted.written as usize;
                stats.extend(converted.stats);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.len() > 1 {
        return Err(summary(root, &problems));
    }
    if let Some(problem) = problems.pop() {
        return Err(problem);
    }

    for (name, text) in layout.lists(root)? {
        replace(&root.join(name), text.as_bytes())?;
    }
    write_json(&root.join(CLASS_STATS_DICT), &stats_by_file(&stats))?;
    write_json(&root.join(SAMPLES_WITH_CLASS), &files_by_class(&stats))?;
    write_json(&root.join(CLASS_STATS), &stats_list(&stats))?;
    let mut pixels = [0; 256];
    for &(class, count) in stats.iter().flat_map(|s| &s.counts) {
        pixels[class as usize] += count;
    }
    prepared.pixels = (0..).zip(pixels).filter(|&(_, count)| count > 0).collect();
    Ok(prepared)
}

/// Prepares a data set by the name of its layout. `place`: its folder; for the layout "files", the
/// configuration whose `[source.files]` describes it.
///
/// # Errors
/// There is no such layout; the configuration's source has another; what [`prepare`] fails with.
pub fn prepare_named(layout: &str, place: &Path, observer: &dyn Observer) -> Result<Prepared> {
    if layout != FILES {
        return prepare(layouts::find(layout)?, place, observer);
    }
    let config = Config::load(&place.display().to_string(), &[])?;
    config.notes.lines().iter().for_each(|note| observer.message(note));
    let (domain, classes) = (&config.source, config.network.classes);
    if domain.layout != FILES {
        let problem = format!(
            "source.layout is \"{}\": `udass-raw prepare {} {}` prepares it",
            domain.layout,
            domain.layout,
            domain.root.display()
        );
        return Err(Error::data(place, problem));
    }
    prepare(&Files::new(&domain.files, classes)?, &domain.root, observer)
}

fn summary(root: &Path, problems: &[Error]) -> Error {
    let mut text = format!("{} labels cannot be used:", problems.len());
    for problem in problems.iter().take(LISTED) {
        text += &format!("\n  {problem}");
    }
    if problems.len() > LISTED {
        text += "\n  …";
    }
    Error::data(root, text)
}

struct Converted {
    written: bool,
    stats: Option<FileStats>,
}

fn convert(label: &RawLabel) -> Result<Converted> {
    let (plane, written) = match already_converted(label) {
        Some(plane) => (plane, false),
        None => (label.label.load()?, label.train_ids.is_some()),
    };
    if label.image.exists() {
        check_size(&label.image, picture::size(&label.image)?, &label.label.path, plane.size)?;
    }
    if let Some(train_ids) = label.train_ids.as_ref().filter(|_| written) {
        replace(train_ids, &encode(&plane))?;
    }
    let stats = if label.counted { Some(count(label, &plane)?) } else { None };
    Ok(Converted { written, stats })
}

/// The train ids of an earlier run, if they can be trusted: not older than their label, and whole.
fn already_converted(label: &RawLabel) -> Option<Plane> {
    let train_ids = label.train_ids.as_ref()?;
    let modified = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    if modified(train_ids)? < modified(&label.label.path)? {
        return None;
    }
    LabelFile { path: train_ids.clone(), ids: Arc::clone(&TRAIN_IDS) }.load().ok()
}

fn count(label: &RawLabel, plane: &Plane) -> Result<FileStats> {
    let mut pixels = [0u64; 256];
    plane.data.iter().for_each(|&id| pixels[id as usize] += 1);
    let occurring = (0..=254).zip(pixels).filter(|&(_, count)| count > 0);
    let file = label.train_ids.as_ref().unwrap_or(&label.label.path);
    let file = file.to_str().ok_or_else(|| {
        Error::data(file, "this path is not UTF-8, so the statistics cannot name it")
    })?;
    Ok(FileStats { file: file.to_owned(), counts: occurring.collect() })
}

fn counts(stats: &FileStats) -> Map<String, Value> {
    stats.counts.iter().map(|&(class, pixels)| (class.to_string(), json!(pixels))).collect()
}

fn stats_list(stats: &[FileStats]) -> Value {
    let entry = |s: &FileStats| {
        let mut entry = counts(s);
        entry.insert("file".to_owned(), json!(s.file));
        Value::Object(entry)
    };
    stats.iter().map(entry).collect()
}

fn stats_by_file(stats: &[FileStats]) -> Value {
    let entries = stats.iter().map(|s| (s.file.clone(), Value::Object(counts(s))));
    Value::Object(entries.collect())
}

/// Classes in the order in which they first occur.
fn files_by_class(stats: &[FileStats]) -> Value {
    let mut classes: Vec<(u8, Vec<Value>)> = Vec::new();
    for s in stats {
        for &(class, pixels) in &s.counts {
            let entry = json!([s.file, pixels]);
            match classes.iter_mut().find(|(c, _)| *c == class) {
                Some((_, files)) => files.push(entry),
                None => classes.push((class, vec![entry])),
            }
        }
    }
    let entries = classes.into_iter().map(|(class, files)| (class.to_string(), files.into()));
    Value::Object(entries.collect())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    // Indented by two like the released tools' files.
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::data(path, format!("cannot be written as JSON: {e}")))?;
    replace(path, &bytes)
}

/// Writes a file beside its place, then moves it there: nobody ever sees half of it.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = std::fs::write(&temporary, bytes).map_err(|e| Error::io(path, "write", e));
    let moved = written.and_then(|()| {
        std::fs::rename(&temporary, path).map_err(|e| Error::io(path, "replace", e))
    });
    if moved.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    moved
}
