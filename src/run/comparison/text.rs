//! Formats a comparison as text, for a terminal and as Markdown.

use std::collections::BTreeSet;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_HORIZONTAL_ONLY};
use comfy_table::{Cell, CellAlignment, LineStyle, Table as Grid, TableStyle};

use super::charts::{Chart, Line};
use super::format::{footnotes, marked, number, signed};
use super::published::{Network, Row};
use super::run::Run;
use super::runs::Comparison;
use super::section::Section;
use super::settings::Setting;

/// A style without lines between the rows.
const STYLE: TableStyle = UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());

/// Number of differing settings listed for each run on a terminal.
const NAMED: usize = 4;

impl Comparison {
    /// Formats the comparison for a terminal. Of the published rows it shows only those with the
    /// same kinds of network as the runs.
    pub fn terminal(&self) -> String {
        let mut parts = Vec::new();
        for section in &self.sections {
            // The kinds of network of the runs' published rows. If no run has a row, all rows are
            // shown.
            let kinds: Vec<Network> =
                section.runs.iter().filter_map(|run| Some(section.row(run)?.1.network)).collect();
            let mut rows = section.rows();
            rows.retain(|row| kinds.is_empty() || kinds.contains(&row.network));
            let mut lines = vec![section.title().to_owned()];
            let mut grid = grid(section, &rows, |name| name.replace('(', "\n("));
            lines.push(grid.load_style(STYLE).to_string());
            lines.extend(footnotes(&rows));
            for run in &section.runs {
                lines.push(format!("\n{} ({}, {})", run.name, run.describe(), run.paths()));
                lines.extend(
                    remarks(section, run, NAMED).into_iter().map(|text| format!("  {text}")),
                );
            }
            parts.push(lines.join("\n"));
        }
        parts.join("\n\n\n")
    }

    /// Formats the comparison as Markdown, with all published rows.
    pub fn markdown(&self) -> String {
        let names: Vec<String> = self.runs().map(|run| escaped(&run.name)).collect();
        let mut parts = vec![format!("# {}", names.join(", "))];
        for section in &self.sections {
            let mut lines = vec![format!("## {}", section.title())];
            for run in &section.runs {
                let (name, what) = (escaped(&run.name), escaped(&run.describe()));
                let mut text = format!("**{name}** ({what})\n");
                for remark in remarks(section, run, usize::MAX) {
                    text.push_str(&format!("\n- {}", escaped(&remark)));
                }
                lines.push(text);
            }
            lines.push(format!("IoU in percent; {}", legend(section)));
            let rows = section.rows();
            lines.push(grid(section, &rows, escaped).load_style(ASCII_MARKDOWN).to_string());
            lines.extend(footnotes(&rows));
            parts.push(lines.join("\n\n"));
        }
        let charts = self.charts();
        if !charts.is_empty() {
            parts.push("## Curves".into());
            parts.push(format!("Of each, at most {ROWS} points; `--csv` writes all."));
        }
        for chart in &charts {
            parts.push(format!("### {}", escaped(&chart.title())));
            parts.push(points(chart).load_style(ASCII_MARKDOWN).to_string());
        }
        format!("{}\n", parts.join("\n\n"))
    }
}

/// Number of rows of the table of a chart.
const ROWS: usize = 12;

/// Builds the table of a chart: rows for some numbers of iterations, columns for runs.
fn points(chart: &Chart) -> Grid {
    let mut grid = Grid::new();
    let runs = chart.lines.iter().map(|line| Cell::new(escaped(&line.run)));
    grid.set_header(std::iter::once(Cell::new("iterations")).chain(runs));
    let steps: BTreeSet<u64> =
        chart.lines.iter().flat_map(|line| line.points.iter().map(|(step, _)| *step)).collect();
    let steps: Vec<u64> = steps.into_iter().collect();
    let count = steps.len().min(ROWS);
    for row in 1..=count {
        // Evenly spaced, with the last one.
        let step = steps[row * steps.len() / count - 1];
        let value = |line: &Line| {
            let found = line.points.iter().find(|(at, _)| *at == step);
            found.map_or("–".into(), |(_, value)| value.shown(|value| chart.value(value)))
        };
        grid.add_row(std::iter::once(step.to_string()).chain(chart.lines.iter().map(value)));
    }
    for column in grid.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    grid
}

/// Returns the remarks about a run, listing at most `settings` of its differing settings.
fn remarks(section: &Section, run: &Run, settings: usize) -> Vec<String> {
    let mut all = vec![section.verdict(run), section.data(run)];
    if let Some(count) = section.settings(run) {
        all.push(match run.settings.is_empty() {
            true => count,
            false => format!("{count}: {}", Setting::list(&run.settings, settings)),
        });
    }
    // The preset of the published row was just named.
    if section.preset(run) != Some(&run.preset) {
        all.push(run.origin(settings));
    }
    all
}

/// Explains the columns of the table.
fn legend(section: &Section) -> &'static str {
    if section.rows().is_empty() {
        "every column is a run."
    } else {
        "a run, then its difference from its published row, then the published rows."
    }
}

/// Builds the table: a row for each class, then one for each mean; columns for runs and published
/// rows.
fn grid(section: &Section, rows: &[&Row], title: impl Fn(&str) -> String) -> Grid {
    let mut header = vec![Cell::new("class")];
    for run in &section.runs {
        header.push(Cell::new(title(&run.name)));
        if let Some((_, row)) = section.row(run) {
            header.push(Cell::new(title(&format!("− {}", row.name))));
        }
    }
    header.extend(rows.iter().map(|row| Cell::new(title(&marked(row)))));
    let mut grid = Grid::new();
    grid.set_header(header);
    for class in 0..section.classes.len() {
        let mut line = vec![title(&section.classes.name(class))];
        for run in &section.runs {
            line.push(run.iou(class).percent());
            line.extend(section.difference(run, class).map(signed));
        }
        if let Some(table) = &section.table {
            line.extend(rows.iter().map(|row| number(table.iou(row, class))));
        }
        grid.add_row(line);
    }
    for (index, mean) in section.means().iter().enumerate() {
        let mut line = vec![mean.name.clone()];
        for run in &section.runs {
            let ours = run.mean(mean);
            line.push(ours.percent());
            line.extend(section.row(run).map(|(_, row)| signed(ours.mean - row.means[index])));
        }
        line.extend(rows.iter().map(|row| number(row.means[index])));
        grid.add_row(line);
    }
    for column in grid.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    grid
}

/// Escapes Markdown's special characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\`*_[]<>|#".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
