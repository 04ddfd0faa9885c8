//! Rare-class sampling (DAFormer, Hoyer et al. 2022): source images are drawn such that rare
//! classes appear more often.
//!
//! The statistics are files that preparation writes, in the format of the released tools.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    config::RareClassSampling,
    data::{decode::MAX_PIXELS, layouts::Pair},
    error::{Error, Result},
    file::{self, MAX_TEXT},
    rng::Draw,
};

/// File name of the class statistics: a list with one entry per label.
pub const CLASS_STATS: &str = "sample_class_stats.json";
/// File name of the class statistics keyed by label path.
pub const CLASS_STATS_DICT: &str = "sample_class_stats_dict.json";
/// File name of the list of labels that contain each class.
pub const SAMPLES_WITH_CLASS: &str = "samples_with_class.json";

/// Pixel counts of the classes that occur in one label, in the order of the statistics file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Path of the train-id label.
    pub file: String,
    /// Pairs of train id and pixel count.
    pub counts: Vec<(u8, u64)>,
}

/// Reads `sample_class_stats.json` from a prepared folder.
pub fn read_class_stats(root: &Path, classes: usize) -> Result<Vec<FileStats>> {
    let path = root.join(CLASS_STATS);
    let entries: Vec<Map<String, Value>> = read_json(&path)?;
    entries.into_iter().map(|entry| parse_stats(&path, entry, classes)).collect()
}

fn parse_stats(path: &Path, entry: Map<String, Value>, classes: usize) -> Result<FileStats> {
    let mut stats = FileStats::default();
    for (key, value) in entry {
        if key == "file" {
            let name =
                value.as_str().ok_or_else(|| Error::data(path, "\"file\" is not a string"))?;
            stats.file = name.to_owned();
            continue;
        }
        let pixels = value.as_u64().ok_or_else(|| {
            Error::data(path, format!("class \"{key}\" has {value} pixels: expected a count"))
        })?;
        check_count(path, &key, pixels)?;
        stats.counts.push((parse_class(path, &key, classes)?, pixels));
    }
    if stats.file.is_empty() {
        return Err(Error::data(path, "an entry has no key \"file\""));
    }
    Ok(stats)
}

/// Reads `samples_with_class.json` from a prepared folder: for each class, the labels that contain
/// it and their pixel counts.
fn read_samples_with_class(root: &Path, classes: usize) -> Result<HashMap<u8, Vec<(String, u64)>>> {
    let path = root.join(SAMPLES_WITH_CLASS);
    let samples: HashMap<String, Vec<(String, u64)>> = read_json(&path)?;
    let checked = |(key, files): (String, Vec<(String, u64)>)| {
        files.iter().try_for_each(|(_, pixels)| check_count(&path, &key, *pixels))?;
        Ok((parse_class(&path, &key, classes)?, files))
    };
    samples.into_iter().map(checked).collect()
}

/// Rejects a count of more pixels than a label can have. Sums and areas of counts cannot overflow.
fn check_count(path: &Path, class: &str, pixels: u64) -> Result<()> {
    match pixels <= MAX_PIXELS as u64 {
        true => Ok(()),
        false => {
            let problem = format!("class \"{class}\" has {pixels} pixels: no label has as many");
            Err(Error::data(path, problem))
        }
    }
}

fn parse_class(path: &Path, key: &str, classes: usize) -> Result<u8> {
    let class = key.parse().ok().filter(|&class| (class as usize) < classes);
    class.ok_or_else(|| {
        let last = classes.saturating_sub(1);
        Error::data(path, format!("key \"{key}\" is not a class: expected \"0\" to \"{last}\""))
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = file::read(path, MAX_TEXT).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::data(
            path,
            "the class statistics are missing: run `udass-raw prepare` on this dataset first",
        ),
        _ => Error::io(path, "read", e),
    })?;
    serde_json::from_slice(&bytes).map_err(|e| {
        let problem = format!("not the expected JSON ({e}): run `udass-raw prepare` again");
        Error::data(path, problem)
    })
}

/// Returns the classes in ascending order of their total pixel count (ties keep the order of first
/// occurrence) and the sampling probability of each: softmax((1 − share of all pixels) /
/// temperature).
///
/// The computation is in single precision like the reference, because at low temperatures the
/// rounding of the shares affects the fifth digit.
pub fn rare_class_probabilities(stats: &[FileStats], temperature: f64) -> (Vec<u8>, Vec<f32>) {
    let mut totals: Vec<(u8, u64)> = Vec::new();
    for &(class, pixels) in stats.iter().flat_map(|s| &s.counts) {
        match totals.iter_mut().find(|(c, _)| *c == class) {
            Some((_, total)) => *total += pixels,
            None => totals.push((class, pixels)),
        }
    }
    totals.sort_by_key(|&(_, total)| total);
    let all = totals.iter().map(|&(_, total)| total).sum::<u64>() as f32;
    let logit = |total: u64| (1.0 - total as f32 / all) / temperature as f32;
    let logits: Vec<f32> = totals.iter().map(|&(_, total)| logit(total)).collect();
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|l| (l - max).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    (totals.iter().map(|t| t.0).collect(), exponentials.iter().map(|e| e / sum).collect())
}

/// For each class, the indices of the source files that contain it, with their pixel counts.
#[derive(Debug)]
pub struct FilesByClass(Vec<Vec<(u32, u64)>>);

impl FilesByClass {
    /// Reads `samples_with_class.json` and looks up its files among the labels of `pairs`: by path,
    /// or else by file name, because the folder may have been prepared under another path.
    ///
    /// # Errors
    /// The statistics are missing or malformed, or name a label that `pairs` does not contain.
    pub fn read(root: &Path, pairs: &[Pair], classes: usize) -> Result<Self> {
        let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
        let mut paths: HashMap<&Path, u32> = HashMap::with_capacity(pairs.len());
        // None for a name that several labels share.
        let mut names: HashMap<String, Option<u32>> = HashMap::with_capacity(pairs.len());
        for (pair, i) in pairs.iter().zip(0..) {
            paths.insert(&pair.label.path, i);
            if let Some(name) = name(&pair.label.path) {
                names.entry(name).and_modify(|found| *found = None).or_insert(Some(i));
            }
        }
        let mut files = vec![Vec::new(); classes];
        for (class, samples) in read_samples_with_class(root, classes)? {
            for (file, pixels) in samples {
                let name = file.rsplit(['/', '\\']).next().unwrap_or(&file);
                let position = paths.get(Path::new(&file)).copied();
                let position = position.or_else(|| names.get(name).copied().flatten());
                let position = position.ok_or_else(|| {
                    let problem = format!(
                        "names {file}, which is not among the {} labels of this dataset: run \
                         `udass-raw prepare` again",
                        pairs.len()
                    );
                    Error::data(root.join(SAMPLES_WITH_CLASS), problem)
                })?;
                files[class as usize].push((position, pixels));
            }
        }
        Ok(FilesByClass(files))
    }

    /// Returns the file with the most pixels of a class, and their number at native size.
    pub fn largest(&self, class: u8) -> Option<(u32, u64)> {
        self.0.get(class as usize)?.iter().copied().max_by_key(|&(_, count)| count)
    }

    /// Returns the indices of the files with more than `min_pixels` of the class, in the order of
    /// the statistics.
    pub fn holding(&self, class: u8, min_pixels: u64) -> Vec<u32> {
        let files = self.0.get(class as usize).map_or(&[][..], Vec::as_slice);
        files.iter().filter(|f| f.1 > min_pixels).map(|f| f.0).collect()
    }
}

/// Draws a class, then an image that contains enough of it.
#[derive(Debug)]
pub struct RareClassSampler {
    classes: Vec<u8>,
    /// Cumulative probabilities, including each class.
    cumulative: Vec<f64>,
    files: Vec<Vec<u32>>,
}

impl RareClassSampler {
    /// Creates a sampler from the statistics in `root`.
    ///
    /// # Errors
    /// The statistics are missing or malformed, or a class that occurs has no image with more than
    /// `min_pixels` of it.
    pub fn new(config: &RareClassSampling, root: &Path, files: &FilesByClass) -> Result<Self> {
        let stats = read_class_stats(root, files.0.len())?;
        let (classes, probabilities) = rare_class_probabilities(&stats, config.temperature);
        if classes.is_empty() {
            return Err(Error::data(root.join(CLASS_STATS), "no label contains any class"));
        }
        let mut sum = 0.0;
        let cumulative = probabilities.iter().map(|&p| {
            sum += p as f64;
            sum
        });
        let cumulative = cumulative.collect();
        let holding = |&class: &u8| {
            let files = files.holding(class, config.min_pixels);
            if files.is_empty() {
                let problem = format!(
                    "no image contains more than {} pixels of class {class}: lower \
                     rare_class_sampling.min_pixels",
                    config.min_pixels
                );
                return Err(Error::data(root.join(SAMPLES_WITH_CLASS), problem));
            }
            Ok(files)
        };
        let files = classes.iter().map(holding).collect::<Result<_>>()?;
        Ok(RareClassSampler { classes, cumulative, files })
    }

    /// Returns the drawn class and the index of the drawn image.
    pub fn draw(&self, mut class: Draw, mut file: Draw) -> (u8, usize) {
        // Rounding may leave the last sum slightly off 1.
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let u = class.uniform() * total;
        let i = self.cumulative.partition_point(|&c| c <= u).min(self.classes.len() - 1);
        (self.classes[i], self.files[i][file.below(self.files[i].len())] as usize)
    }
}
