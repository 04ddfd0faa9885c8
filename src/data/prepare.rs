//! Prepares a downloaded dataset: converts labels to train ids and counts how often each class
//! occurs.
//!
//! Files have the names and format of the released tools, so a folder prepared by either works with
//! both.

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
        decode,
        labels::{LabelFile, Plane, TRAIN_IDS, check_size, encode},
        layouts::{self, Files, Layout, RawLabel},
        sampling::{CLASS_STATS, CLASS_STATS_DICT, FileStats, SAMPLES_WITH_CLASS},
    },
    error::{Error, Result},
    observer::Observer,
};

/// Result of preparing a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Number of labels converted by this run.
    pub written: usize,
    /// Number of labels that needed no conversion: the converted file is readable and not older
    /// than its source, or the label is read directly.
    pub kept: usize,
    /// Pixel count of each class that occurs in the counted labels, ordered by class.
    pub pixels: Vec<(u8, u64)>,
}

/// Maximum number of problems in one error message.
const LISTED: usize = 5;

/// Writes train ids next to every label below `root`, the class statistics, and the lists of the
/// layout.
///
/// Runs on all cores. Every file is replaced atomically, so an interrupted run can be repeated;
/// labels that are already converted are then only read.
///
/// # Errors
/// Folders are missing, or labels are damaged, contain ids out of range or differ in size from
/// their image. All labels are checked and the first few problems are listed; the statistics are
/// not written in this case.
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

/// Prepares a dataset by the name of its layout. `place` is its folder, or for the layout "files"
/// the configuration whose `[source.files]` describes it.
///
/// # Errors
/// The layout does not exist, the source of the configuration has another layout, or [`prepare`]
/// fails.
pub fn prepare_named(layout: &str, place: &Path, observer: &dyn Observer) -> Result<Prepared> {
    if layout != FILES {
        return prepare(layouts::find(layout)?, place, observer);
    }
    let config = Config::load(&place.display().to_string(), &[])?;
    config.notes.lines().iter().for_each(|note| observer.message(note));
    let (domain, classes) = (&config.source, config.network.classes);
    if domain.layout != FILES {
        let problem = format!(
            "source.layout is \"{}\": prepare it with `udass-raw prepare {} {}`",
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
        check_size(&label.image, decode::size(&label.image)?, &label.label.path, plane.size)?;
    }
    if let Some(train_ids) = label.train_ids.as_ref().filter(|_| written) {
        replace(train_ids, &encode(&plane))?;
    }
    let stats = if label.counted { Some(count(label, &plane)?) } else { None };
    Ok(Converted { written, stats })
}

/// Returns the train ids of an earlier run if they are complete and not older than the label.
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
        Error::data(file, "this path is not UTF-8, so it cannot be listed in the class statistics")
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

/// Returns the files of each class, with classes in order of first occurrence.
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
    // The indentation matches the released tools' files.
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::data(path, format!("cannot be serialized as JSON: {e}")))?;
    replace(path, &bytes)
}

/// Replaces a file atomically: the new contents are written to a temporary file, which is then
/// renamed.
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
