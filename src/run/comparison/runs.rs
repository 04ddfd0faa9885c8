//! Reads runs and groups them by task.

use std::path::{Path, PathBuf};

use super::published::{Table, tables};
use super::saved::Saved;
use super::section::Section;
use crate::error::Result;

/// Runs grouped by task, in the order given.
#[derive(Debug)]
pub struct Comparison {
    pub(super) sections: Vec<Section>,
}

impl Comparison {
    /// Reads runs: folders written by `train`, or files written by `eval --json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io). [`Error::Data`](crate::Error::Data), naming the file and
    /// the key, if a path is not a run, was never evaluated, or does not have Cityscapes' 19
    /// classes.
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
}

/// Returns the folder or file name of each path if it is unique, and otherwise the path as given.
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
