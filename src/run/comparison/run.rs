//! One run of a comparison.

use std::path::PathBuf;

/// One run, with what it measured and how it differs from its published row.
#[derive(Debug)]
pub struct Run {
    /// Short name, unique among the runs.
    pub name: String,
    /// The path that the user gave.
    pub path: PathBuf,
    /// IoU by train id, in percent; NaN for a class that does not occur.
    pub iou: Vec<f64>,
    /// Iterations trained before the evaluation, if known.
    pub iteration: Option<u64>,
    /// Method and backbone, as in `mic on mit_b0`.
    pub what: String,
    /// Index of the corresponding row in the table.
    pub row: Option<usize>,
    /// The reason to show if there is no corresponding row.
    pub no_row: String,
    /// Ways in which the data is not the published benchmark's.
    pub foreign: Vec<String>,
    /// Settings that differ from the published row's preset.
    pub settings: Vec<Setting>,
}

/// A configuration key whose value differs from the published row's preset.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key, as in `section.key`.
    pub key: String,
    /// The run's value.
    pub run: String,
    /// The preset's value.
    pub published: String,
}

impl Run {
    /// Describes the run, as in `mic on mit_b0, 800 iterations`.
    pub fn describe(&self) -> String {
        match self.iteration {
            Some(iteration) => format!("{}, {iteration} iterations", self.what),
            None => self.what.clone(),
        }
    }
}
