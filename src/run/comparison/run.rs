//! One run, as it is compared.

use std::path::PathBuf;

/// One run.
#[derive(Debug)]
pub struct Run {
    /// Short, and no other run's.
    pub name: String,
    pub path: PathBuf,
    /// By train id, percent; NaN for a class that does not occur.
    pub iou: Vec<f64>,
    pub iteration: Option<u64>,
    /// What was run, in a few words.
    pub what: String,
    /// Index of its row in the table.
    pub row: Option<usize>,
    /// Why there is none.
    pub no_row: String,
    /// What is not the published benchmark's about its data.
    pub foreign: Vec<String>,
    pub settings: Vec<Setting>,
}

/// A key whose value is not that of the published row's preset.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub key: String,
    pub run: String,
    pub published: String,
}

impl Run {
    /// `mic on mit_b0, 800 iterations`
    pub fn describe(&self) -> String {
        match self.iteration {
            Some(iteration) => format!("{}, {iteration} iterations", self.what),
            None => self.what.clone(),
        }
    }
}
