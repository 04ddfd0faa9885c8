//! Prepares a downloaded dataset: converts labels to train ids and counts how often each class
//! occurs.
//!
//! Files have the names and format of the released tools, so a folder prepared by either works with
//! both.

use std::{
    collections::{BTreeSet, HashSet},
    io::Write,
    path::{Path, PathBuf},
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
        classes::Classes,
        decode,
        labels::{LabelFile, Outside, Plane, TRAIN_IDS, check_size, encode},
        layouts::{self, Files, Layout, RawLabel, Split},
        sampling::{CLASS_STATS, CLASS_STATS_DICT, FileStats, SAMPLES_WITH_CLASS},
    },
    error::{Error, Result},
    file::atomic::{remove_leftovers_of_dead_processes, replace},
    observer::Observer,
};

/// Result of preparing a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Number of labels converted by this run.
    pub written: usize,
    /// Number of labels that needed no conversion: the converted file holds what the label gives,
    /// or the label is read directly.
    pub kept: usize,
    /// Number of labels in the statistics: those of the training split that have an image.
    pub counted: usize,
    /// How often each class occurs in the counted labels, for every class that they can contain, in
    /// ascending order.
    pub classes: Vec<ClassCount>,
    /// What the user should know: classes that occur nowhere, labels that were left out, and values
    /// that are not in the list.
    pub notes: Vec<String>,
}

/// How often a class occurs in a dataset's counted labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassCount {
    /// The train id.
    pub class: u8,
    /// Number of pixels.
    pub pixels: u64,
    /// Number of images that contain it.
    pub images: usize,
}

/// Maximum number of problems in one error message.
const LISTED: usize = 5;

/// Writes train ids next to every label below `root`, the class statistics, and the lists of the
/// layout. `skip_unlabeled` says whether images without a label are left out instead of refused;
/// training has a key of that name.
///
/// Runs on all cores. Every file is replaced atomically, so an interrupted run can be repeated;
/// labels whose converted file is right are then only read. Labels without their image are left out
/// of the statistics. Values that are not in the layout's list become unlabeled, as with the
/// released tools.
///
/// # Errors
/// Folders are missing, labels are damaged, images have no label, or hardly any pixel has a value
/// in the list. All labels are checked and the first few problems are listed; the statistics are
/// not written in this case.
pub fn prepare(
    layout: &dyn Layout,
    root: &Path,
    skip_unlabeled: bool,
    observer: &dyn Observer,
) -> Result<Prepared> {
    let labels = layout.raw_labels(root)?;
    let mut notes = Vec::new();
    if let Some(missing) = unlabeled(layout, root, &labels) {
        match skip_unlabeled {
            true => notes.push(missing),
            false => {
                let problem = format!(
                    "{missing}. Add the labels, or leave these images out: here with \
                     --skip-unlabeled, in training with skip_unlabeled = true in the dataset's \
                     section"
                );
                return Err(Error::data(root, problem));
            }
        }
    }
    let written = labels.iter().filter_map(|label| label.train_ids.as_ref()?.parent());
    for folder in written.chain([root]).collect::<BTreeSet<_>>() {
        remove_leftovers_of_dead_processes(folder)?;
    }
    let done = AtomicUsize::new(0);
    let converted: Vec<Result<Converted>> = labels
        .par_iter()
        .map(|label| {
            let converted = convert(label);
            observer.advance(done.fetch_add(1, Ordering::Relaxed) + 1, labels.len(), "");
            converted
        })
        .collect();

    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for converted in converted {
        match converted {
            Ok(converted) => all.push(converted),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.len() > 1 {
        return Err(summary(root, &problems));
    }
    if let Some(problem) = problems.pop() {
        return Err(problem);
    }
    notes.extend(findings(root, &labels, &all)?);

    let written = all.iter().filter(|converted| converted.written).count();
    let stats: Vec<FileStats> = all.into_iter().filter_map(|converted| converted.stats).collect();
    for (name, text) in layout.lists(root)? {
        replace(&root.join(name), |file| file.write_all(text.as_bytes()))?;
    }
    write_json(&root.join(CLASS_STATS_DICT), &stats_by_file(&stats))?;
    write_json(&root.join(SAMPLES_WITH_CLASS), &files_by_class(&stats))?;
    write_json(&root.join(CLASS_STATS), &stats_list(&stats))?;
    let classes = class_counts(&labels, &stats);
    let (kept, counted) = (labels.len() - written, stats.len());
    Ok(Prepared { written, kept, counted, classes, notes })
}

/// Prepares a dataset by the name of its layout, and returns the names of its classes too. `place`
/// is its folder, or for the layout "files" the configuration whose `[source.files]` describes it.
///
/// # Errors
/// The layout does not exist, the source of the configuration has another layout, or [`prepare`]
/// fails.
pub fn prepare_named(
    layout: &str,
    place: &Path,
    skip_unlabeled: bool,
    observer: &dyn Observer,
) -> Result<(Prepared, Classes)> {
    if layout != FILES {
        let prepared = prepare(layouts::find(layout)?, place, skip_unlabeled, observer)?;
        return Ok((prepared, Classes::cityscapes()));
    }
    let config = Config::load(text_of(place)?, &[])?;
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
    let skip = skip_unlabeled || domain.skip_unlabeled;
    let prepared = prepare(&Files::new(&domain.files, classes)?, &domain.root, skip, observer)?;
    Ok((prepared, Classes::new(&config.dataset)))
}

/// Describes the images without a label, in splits in which others have one.
fn unlabeled(layout: &dyn Layout, root: &Path, labels: &[RawLabel]) -> Option<String> {
    let labeled: HashSet<&PathBuf> = labels.iter().map(|label| &label.image).collect();
    // Of a dataset without splits, every split has the same images.
    let mut all = BTreeSet::new();
    for split in Split::ALL {
        // A split without images, or without any label, need not be there.
        let Ok(images) = layout.images(root, split) else { continue };
        if images.iter().any(|image| labeled.contains(image)) {
            all.extend(images);
        }
    }
    let found: Vec<&PathBuf> = all.iter().filter(|image| !labeled.contains(image)).collect();
    (!found.is_empty()).then(|| {
        let (n, total) = (found.len(), all.len());
        format!("{n} of {total} images have no label: {}", named(root, found.into_iter()))
    })
}

/// Returns notes on what the labels hold and lack.
///
/// # Errors
/// Hardly any pixel has a value in the list.
fn findings(root: &Path, labels: &[RawLabel], all: &[Converted]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let paths = |wanted: fn(&Converted) -> bool| -> Vec<&PathBuf> {
        let wanted = labels.iter().zip(all).filter(|(_, converted)| wanted(converted));
        wanted.map(|(label, _)| &label.label.path).collect()
    };
    let mut tell = |which: Vec<&PathBuf>, what: &str| {
        if !which.is_empty() {
            let (n, names) = (which.len(), named(root, which.into_iter()));
            notes.push(format!("{n} of {} labels {what}: {names}", labels.len()));
        }
    };
    tell(paths(|c| c.lonely), "have no image and are left out of the statistics");
    tell(
        paths(|c| c.resized),
        "differ in size from their image; as in the reference, training resizes each by itself and \
         pads what is missing",
    );
    tell(
        paths(|c| c.differed),
        "have a converted file that does not hold what the label gives; it was converted again",
    );
    let mut outside = Outside::default();
    all.iter().for_each(|converted| outside.add(converted.outside.clone()));
    if let Some(first) = labels.first().filter(|_| !outside.is_empty()) {
        let pixels = all.iter().map(|converted| converted.pixels).sum();
        first.label.ids.check_share(root, &outside, pixels)?;
        notes.push(format!(
            "{} pixels in {} of {} labels have {}; they count as unlabeled",
            outside.pixels(),
            all.iter().filter(|converted| !converted.outside.is_empty()).count(),
            labels.len(),
            first.label.ids.describe(&outside)
        ));
    }
    Ok(notes)
}

/// Names the first few of some files, relative to the root.
fn named<'a>(root: &Path, paths: impl Iterator<Item = &'a PathBuf>) -> String {
    let mut names: Vec<String> = paths
        .take(LISTED + 1)
        .map(|path| path.strip_prefix(root).unwrap_or(path).display().to_string())
        .collect();
    if names.len() > LISTED {
        names[LISTED] = "…".into();
    }
    names.join(", ")
}

/// Counts pixels and images by class.
fn class_counts(labels: &[RawLabel], stats: &[FileStats]) -> Vec<ClassCount> {
    let (mut pixels, mut images) = ([0; 256], [0; 256]);
    for &(class, count) in stats.iter().flat_map(|s| &s.counts) {
        pixels[class as usize] += count;
        images[class as usize] += 1;
    }
    let possible = labels.first().map_or(Vec::new(), |label| label.label.ids.classes());
    let count = |class: u8| {
        let at = class as usize;
        ClassCount { class, pixels: pixels[at], images: images[at] }
    };
    possible.into_iter().map(count).collect()
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

/// What was found in a label, and what was done with it.
struct Converted {
    /// Whether the converted file was written now.
    written: bool,
    /// Whether a converted file was there that held something else.
    differed: bool,
    /// Whether the image is missing.
    lonely: bool,
    /// Whether the image has another size.
    resized: bool,
    pixels: u64,
    outside: Outside,
    stats: Option<FileStats>,
}

fn convert(label: &RawLabel) -> Result<Converted> {
    let (plane, outside) = label.label.load_counted()?;
    let lonely = !label.image.exists();
    let mut resized = false;
    if !lonely {
        let fits =
            check_size(&label.image, decode::size(&label.image)?, &label.label.path, plane.size);
        resized = fits.is_err();
        // Training can use such a pair; validation cannot.
        if !label.counted {
            fits?;
        }
    }
    let earlier = label
        .train_ids
        .as_ref()
        .and_then(|path| LabelFile { path: path.clone(), ids: Arc::clone(&TRAIN_IDS) }.load().ok());
    let right = earlier.as_ref() == Some(&plane);
    let written = match &label.train_ids {
        Some(train_ids) if !right => {
            replace(train_ids, |file| file.write_all(&encode(&plane)))?;
            true
        }
        _ => false,
    };
    let stats = match label.counted && !lonely {
        true => Some(count(label, &plane)?),
        false => None,
    };
    let (differed, pixels) = (earlier.is_some() && !right, plane.data.len() as u64);
    Ok(Converted { written, differed, lonely, resized, pixels, outside, stats })
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
    replace(path, |file| file.write_all(&bytes))
}

/// Returns a path as text.
fn text_of(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::data(path, "this name is not UTF-8: rename it"))
}
