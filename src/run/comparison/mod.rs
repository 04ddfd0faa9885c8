//! Runs beside published results: what a run measured, which published row it belongs to, and what
//! keeps the two from being comparable.

mod html;
pub mod published;
mod saved;
mod text;

use std::path::{Path, PathBuf};

use self::published::{Mean, Network, Row, Table, tables};
use self::saved::Saved;
use crate::config::Config;
use crate::data::classes;
use crate::error::{Error, Result};

/// Cityscapes' validation set, which all published results were measured on.
const IMAGES: u64 = 500;
const SIZE: [usize; 2] = [2048, 1024];
const CITIES: [&str; 3] = ["frankfurt", "lindau", "munster"];

/// Runs by task, in the order given.
#[derive(Debug)]
pub struct Comparison {
    sections: Vec<Section>,
}

/// The runs of one task.
#[derive(Debug)]
struct Section {
    /// None for a task without published results.
    table: Option<Table>,
    runs: Vec<Run>,
}

/// One run.
#[derive(Debug)]
struct Run {
    /// Short, and no other run's.
    name: String,
    path: PathBuf,
    /// By train id, percent; NaN for a class that does not occur.
    iou: Vec<f64>,
    iteration: Option<u64>,
    /// What was run, in a few words.
    what: String,
    /// Index of its row in the table.
    row: Option<usize>,
    /// Why there is none.
    no_row: String,
    /// What is not the published benchmark's about its data.
    foreign: Vec<String>,
    settings: Vec<Setting>,
}

/// A key whose value is not that of the published row's preset.
#[derive(Clone, Debug, PartialEq)]
struct Setting {
    key: String,
    run: String,
    published: String,
}

impl Comparison {
    /// Reads runs: folders that `train` wrote, or files of `eval --json`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] naming the file, and the key in it, when it is no run, or one
    /// that was never evaluated, or not one of Cityscapes' 19 classes.
    pub fn read(paths: &[PathBuf]) -> Result<Comparison> {
        let tables = tables()?;
        let mut sections: Vec<Section> = Vec::new();
        for (path, name) in paths.iter().zip(names(paths)) {
            let saved = Saved::read(path)?;
            let table = saved.table(&tables).cloned();
            let run = saved.judge(name, path, table.as_ref())?;
            let title = |table: &Option<Table>| table.as_ref().map(|table| table.title.clone());
            match sections.iter_mut().find(|section| title(&section.table) == title(&table)) {
                Some(section) => section.runs.push(run),
                None => sections.push(Section { table, runs: vec![run] }),
            }
        }
        Ok(Comparison { sections })
    }

    /// For a terminal: published rows of the runs' kinds of network only.
    pub fn terminal(&self) -> String {
        text::terminal(self)
    }

    pub fn markdown(&self) -> String {
        text::markdown(self)
    }

    /// A page that needs no other file.
    pub fn html(&self) -> String {
        html::page(self)
    }
}

impl Section {
    fn title(&self) -> &str {
        self.table.as_ref().map_or("No published task", |table| &table.title)
    }

    /// The means that are shown: the published ones, or the mean of all classes.
    fn means(&self) -> Vec<Mean> {
        match &self.table {
            Some(table) => table.means.clone(),
            None => {
                vec![Mean {
                    name: "mIoU".into(),
                    classes: (0..classes::CITYSCAPES.len()).collect(),
                }]
            }
        }
    }

    fn rows(&self) -> Vec<&Row> {
        self.table.iter().flat_map(|table| &table.rows).collect()
    }

    /// The table and the run's row in it.
    fn row(&self, run: &Run) -> Option<(&Table, &Row)> {
        let table = self.table.as_ref()?;
        Some((table, table.rows.get(run.row?)?))
    }

    /// Of a train id, run minus published, percent points.
    fn difference(&self, run: &Run, class: usize) -> Option<f64> {
        let (table, row) = self.row(run)?;
        Some(run.iou.get(class)? - table.iou(row, class))
    }

    /// `mIoU 54.9, 21.1 below the published QuadMix(ViT) (76.1)`; a reason where there is no row.
    fn verdict(&self, run: &Run) -> String {
        let Some((table, row)) = self.row(run) else {
            let means = self.means();
            let told: Vec<String> = (means.iter())
                .map(|mean| format!("{} {}", mean.name, number(mean.of(&run.iou))))
                .collect();
            return format!("{}; {}", told.join(", "), run.no_row);
        };
        let told: Vec<String> = (table.means.iter().zip(&row.means))
            .map(|(mean, &published)| {
                let ours = mean.of(&run.iou);
                let gap = ours - published;
                let side = if gap < 0.0 { "below" } else { "above" };
                format!(
                    "{} {}, {} {side} the published {} ({})",
                    mean.name,
                    number(ours),
                    number(gap.abs()),
                    row.name,
                    number(published)
                )
            })
            .collect();
        told.join("; ")
    }

    /// What the run's data is, against what was published.
    fn data(&self, run: &Run) -> String {
        if run.foreign.is_empty() {
            return format!(
                "validated on Cityscapes' {IMAGES} images of {}x{}, as the published results were",
                SIZE[0], SIZE[1]
            );
        }
        format!("NOT the published benchmark's data: {}", run.foreign.join("; "))
    }

    /// How many settings differ from the preset; none where the row has no preset.
    fn settings(&self, run: &Run) -> Option<String> {
        let preset = self.row(run)?.1.preset.as_ref()?;
        Some(match run.settings.len() {
            0 => format!("settings as in preset {preset}"),
            1 => format!("1 setting differs from preset {preset}"),
            count => format!("{count} settings differ from preset {preset}"),
        })
    }
}

impl Run {
    /// `mic on mit_b0, 800 iterations`
    fn describe(&self) -> String {
        match self.iteration {
            Some(iteration) => format!("{}, {iteration} iterations", self.what),
            None => self.what.clone(),
        }
    }
}

/// What is odd about these rows, with their names.
fn footnotes(rows: &[&Row]) -> Vec<String> {
    let noted = rows.iter().filter_map(|row| Some((row, row.note.as_ref()?)));
    noted.map(|(row, note)| format!("{}: {note}", marked(row))).collect()
}

/// A row's name, with a sign when there is a note about it.
fn marked(row: &Row) -> String {
    format!("{}{}", row.name, if row.note.is_some() { "†" } else { "" })
}

/// One decimal, as the published numbers; a dash where there is none.
fn number(percent: f64) -> String {
    if percent.is_nan() { "–".into() } else { format!("{percent:.1}") }
}

/// With a sign.
fn signed(points: f64) -> String {
    if points.is_nan() {
        return "–".into();
    }
    // What rounds to nothing has no sign.
    let rounded = (points * 10.0).round() / 10.0;
    if rounded == 0.0 { "0.0".into() } else { format!("{rounded:+.1}").replace('-', "−") }
}

/// The folder's or file's own name where that tells the runs apart, else the path as given.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let short = |path: &Path| {
        let name = if path.is_dir() {
            path.canonicalize().ok().and_then(|path| path.file_name().map(ToOwned::to_owned))
        } else {
            path.file_stem().map(ToOwned::to_owned)
        };
        name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into())
    };
    let all: Vec<String> = paths.iter().map(|path| short(path)).collect();
    let unique = |name: &String| all.iter().filter(|other| *other == name).count() == 1;
    let chosen = all.iter().zip(paths);
    chosen
        .map(|(name, path)| if unique(name) { name.clone() } else { path.display().to_string() })
        .collect()
}
