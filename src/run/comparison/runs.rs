//! Reads runs, joins those that differ only in their seed, and groups them by task.

use std::path::{Path, PathBuf};

use super::charts::Chart;
use super::published::{Table, tables};
use super::run::Run;
use super::saved::Saved;
use super::section::Section;
use crate::error::Result;

/// Runs grouped by task, in the order given.
#[derive(Debug)]
pub struct Comparison {
    pub(super) sections: Vec<Section>,
}

/// A run that was read, with the short name and the path that it was given by.
struct Read<'a> {
    name: String,
    path: &'a Path,
    saved: Saved,
}

impl Comparison {
    /// Reads runs: folders written by `train`, or files written by `eval --json`. Runs that differ
    /// only in their seed are joined: what is shown of them is mean and standard deviation.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io). [`Error::Data`](crate::Error::Data), naming the file and
    /// the key, if a path is not a run.
    pub fn read(paths: &[PathBuf]) -> Result<Comparison> {
        let tables = tables()?;
        let mut groups: Vec<Vec<Read>> = Vec::new();
        for (path, name) in paths.iter().zip(names(paths)) {
            let read = Read { name, path, saved: Saved::read(path)? };
            match groups.iter_mut().find(|group| joins(group, &read.saved)) {
                Some(group) => group.push(read),
                None => groups.push(vec![read]),
            }
        }
        let mut sections: Vec<Section> = Vec::new();
        for (color, group) in groups.into_iter().enumerate() {
            let first = &group[0].saved;
            let (table, classes) = (first.table(&tables).cloned(), first.classes());
            let run = Run { color, ..joined(group, table.as_ref())? };
            let title = |table: &Option<Table>| table.as_ref().map(|table| table.title.clone());
            let same = |section: &&mut Section| {
                title(&section.table) == title(&table) && section.classes == classes
            };
            match sections.iter_mut().find(same) {
                Some(section) => section.runs.push(run),
                None => sections.push(Section { table, classes, runs: vec![run] }),
            }
        }
        Ok(Comparison { sections })
    }

    /// Returns all runs.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.sections.iter().flat_map(|section| &section.runs)
    }

    /// Returns the charts of the runs' curves.
    pub(super) fn charts(&self) -> Vec<Chart> {
        let runs = self.sections.iter();
        let runs = runs.flat_map(|section| section.runs.iter().map(|run| (run, &section.classes)));
        Chart::all(&runs.collect::<Vec<_>>())
    }
}

/// Returns whether a run differs from all of a group in nothing but its seed, and was evaluated after
/// as many iterations as all of them at least once.
fn joins(group: &[Read], other: &Saved) -> bool {
    group.iter().all(|member| member.saved.differs_in_seed(other))
        && common(group, Some(other)).is_some()
}

/// Returns the last evaluation, by its number of iterations, that all of a group have.
fn common(group: &[Read], other: Option<&Saved>) -> Option<u64> {
    let all = || group.iter().map(|read| &read.saved).chain(other);
    let everywhere = |at: &u64| all().all(|saved| saved.evaluations().any(|other| other == *at));
    all().next()?.evaluations().filter(everywhere).max()
}

/// Makes one run of the members of a group.
fn joined(group: Vec<Read>, table: Option<&Table>) -> Result<Run> {
    let name = match &group[..] {
        [one] => one.name.clone(),
        all => format!("{}, {} seeds", shared_name(all), all.len()),
    };
    let mut run = group[0].saved.judge(name, table)?;
    let at = if group.len() > 1 { common(&group, None) } else { None };
    run.iteration = at.or(run.iteration);
    let member = |Read { name, path, saved }: Read| saved.member(name, path, at);
    run.members = group.into_iter().map(member).collect();
    Ok(run)
}

/// Returns what the names of runs have in common: those of `train --seeds` end in the seed.
fn shared_name(group: &[Read]) -> String {
    let base = |read: &Read| {
        let seed = format!("_seed{}", read.saved.seed());
        read.name.strip_suffix(&seed).map(str::to_owned)
    };
    match base(&group[0]) {
        Some(name) if group.iter().all(|read| base(read).as_ref() == Some(&name)) => name,
        _ => group[0].name.clone(),
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
