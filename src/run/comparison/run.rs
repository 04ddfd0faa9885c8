//! One run of a comparison, or several that differ only in their seed.

use std::path::PathBuf;

use super::history::History;
use super::published::Mean;
use super::settings::Setting;
use super::spread::Spread;

/// Runs that differ only in their seed, with what they measured and how they differ from their
/// published row.
#[derive(Debug)]
pub struct Run {
    /// Short name, unique among the runs.
    pub name: String,
    /// Number of the run among all of the comparison, by which its color is chosen.
    pub color: usize,
    /// One for each seed.
    pub members: Vec<Member>,
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
    /// The preset with the fewest differing settings.
    pub preset: String,
    /// The settings that differ from it.
    pub changed: Vec<Setting>,
}

/// A run with one seed.
#[derive(Debug, Default)]
pub struct Member {
    /// Short name, unique among the runs.
    pub name: String,
    /// The path that the user gave.
    pub path: PathBuf,
    /// The run's folder; `None` for a file of an evaluation.
    pub folder: Option<PathBuf>,
    /// IoU by train id, in percent; NaN for a class that does not occur. Empty without an evaluation.
    pub iou: Vec<f64>,
    /// The numbers over its iterations.
    pub history: History,
}

impl Run {
    /// Returns the IoU of a class.
    pub fn iou(&self, class: usize) -> Spread {
        let of = |member: &Member| member.iou.get(class).copied().unwrap_or(f64::NAN);
        Spread::of(self.members.iter().map(of))
    }

    /// Returns a mean over classes.
    pub fn mean(&self, mean: &Mean) -> Spread {
        Spread::of(self.members.iter().map(|member| mean.of(&member.iou)))
    }

    /// Returns whether the run was evaluated.
    pub fn is_evaluated(&self) -> bool {
        self.members.iter().any(|member| !member.iou.is_empty())
    }

    /// Describes the run, as in `mic on mit_b0, 800 iterations`.
    pub fn describe(&self) -> String {
        match self.iteration {
            Some(iteration) => format!("{}, {iteration} iterations", self.what),
            None => self.what.clone(),
        }
    }

    /// Returns the paths that the user gave.
    pub fn paths(&self) -> String {
        let paths: Vec<String> =
            self.members.iter().map(|member| member.path.display().to_string()).collect();
        paths.join(", ")
    }

    /// Says how the settings differ from the nearest preset's, naming at most `most` of them.
    pub fn origin(&self, most: usize) -> String {
        match self.changed.len() {
            0 => format!("trained as preset {} says", self.preset),
            1 => format!(
                "trained as preset {} says, but for 1 setting: {}",
                self.preset,
                Setting::list(&self.changed, most)
            ),
            count => format!(
                "trained as preset {} says, but for {count} settings: {}",
                self.preset,
                Setting::list(&self.changed, most)
            ),
        }
    }
}
