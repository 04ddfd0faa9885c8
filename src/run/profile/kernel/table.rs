//! Measurements of kernels as text, JSON, CSV and Markdown.

use std::fmt::Write;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde_json::{Map, Value, json};

use super::launches::{Kernel, Listed};
use super::timing::{Caches, Timing};
use super::versions::Comparison;
use crate::run::profile::rates::Rates;
use crate::run::profile::units::time;

/// A measured launch.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The values on the axes, by configuration key.
    pub axes: Vec<(String, String)>,
    /// The launch.
    pub kernel: Kernel,
    /// Its times.
    pub timing: Timing,
    /// Where the tensors were.
    pub caches: Caches,
    /// Peak rates of the device.
    pub rates: Rates,
    /// Another version of the kernel.
    pub against: Option<Comparison>,
}

/// Measured launches of one kernel.
#[derive(Clone, Debug, Default)]
pub struct Measurements(pub Vec<Measurement>);

/// A column of CSV and Markdown files: its name and its value.
type Column = (String, Value);

impl Measurement {
    fn bound(&self) -> f64 {
        self.rates.bound(self.kernel.bytes, self.kernel.flops)
    }

    /// Returns all numbers, in seconds, bytes and FLOPs.
    fn columns(&self) -> Vec<Column> {
        let (kernel, timing, least) = (&self.kernel, &self.timing, self.timing.least());
        let mut columns: Vec<Column> = vec![("kernel".into(), kernel.name().into())];
        columns.extend(self.axes.iter().map(|(key, value)| (key.clone(), json!(value))));
        let mut add = |name: &str, value: Value| columns.push((name.into(), value));
        add("shape", kernel.shape().into());
        add("calls_per_iteration", kernel.calls.into());
        add("caches", json!(if self.caches == Caches::Cold { "cold" } else { "hot" }));
        add("sets", timing.sets.into());
        add("samples", timing.samples.len().into());
        add("minimum_seconds", json!(least));
        add("median_seconds", json!(timing.median()));
        add("noise", json!(timing.noise()));
        add("bytes", json!(kernel.bytes));
        add("flops", json!(kernel.flops));
        add("bytes_per_second", json!(kernel.bytes / least));
        add("flops_per_second", json!(kernel.flops / least));
        add("bound_seconds", json!(self.bound()));
        add("of_bound", json!(self.bound() / least));
        if let Some(other) = &self.against {
            let (largest, unequal) = (largest(other), unequal(other));
            add("against", other.file.display().to_string().into());
            add("against_minimum_seconds", json!(other.timing.least()));
            add("against_median_seconds", json!(other.timing.median()));
            add("against_noise", json!(other.timing.noise()));
            add("speedup", json!(least / other.timing.least()));
            add("unequal_elements", unequal.into());
            // JSON has no infinity.
            let finite = if largest.is_finite() { json!(largest) } else { json!("inf") };
            add("largest_difference", finite);
        }
        columns
    }

    fn describe(&self) -> String {
        let (kernel, timing, least) = (&self.kernel, &self.timing, self.timing.least());
        let axes: String =
            self.axes.iter().map(|(key, value)| format!(", {key}={value}")).collect();
        let caches = match self.caches {
            Caches::Cold => format!("cold caches ({} sets of tensors in turn)", timing.sets),
            Caches::Hot => "hot caches".into(),
        };
        let mut text = format!(
            "{} {}{axes}, {} of them in an iteration\n\
             {} times with {caches}: minimum {}, median {}, noise {:.1} %\n\
             {:.1} GB/s, {:.3} TFLOP/s, {:.0} % of its bound of {}",
            kernel.name(),
            kernel.shape(),
            kernel.calls,
            timing.samples.len(),
            time(least),
            time(timing.median()),
            100.0 * timing.noise(),
            kernel.bytes / least * 1e-9,
            kernel.flops / least * 1e-12,
            100.0 * self.bound() / least,
            time(self.bound())
        );
        if let Some(other) = &self.against {
            let theirs = other.timing.least();
            let _ = write!(
                text,
                "\n{}: minimum {}, median {}, noise {:.1} %: {:.2} times as fast",
                other.file.display(),
                time(theirs),
                time(other.timing.median()),
                100.0 * other.timing.noise(),
                least / theirs
            );
            for (name, difference) in &other.differences {
                let _ = write!(
                    text,
                    "\n  {name}: {} of {} elements differ, by at most {:.3e}; ours reach {:.3e}",
                    difference.unequal,
                    difference.elements,
                    difference.largest,
                    difference.magnitude
                );
            }
        }
        text
    }
}

fn largest(other: &Comparison) -> f64 {
    other.differences.iter().map(|(_, difference)| difference.largest).fold(0.0, f64::max)
}

fn unequal(other: &Comparison) -> usize {
    other.differences.iter().map(|(_, difference)| difference.unequal).sum()
}

impl Measurements {
    /// Returns text for a terminal, a paragraph for each launch.
    pub fn terminal(&self) -> String {
        let all: Vec<String> = self.0.iter().map(Measurement::describe).collect();
        all.join("\n\n")
    }

    /// Returns a list of objects, each with every sample.
    pub fn to_json(&self) -> Value {
        let one = |measurement: &Measurement| {
            let mut all: Map<String, Value> = measurement.columns().into_iter().collect();
            all.insert("sample_seconds".into(), json!(measurement.timing.samples));
            if let Some(other) = &measurement.against {
                all.insert("against_sample_seconds".into(), json!(other.timing.samples));
            }
            Value::Object(all)
        };
        self.0.iter().map(one).collect()
    }

    /// Returns a table as CSV (RFC 4180).
    pub fn csv(&self) -> String {
        let quoted = |text: String| match text.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text,
        };
        self.rows().iter().fold(String::new(), |mut text, row| {
            let cells: Vec<String> = row.iter().cloned().map(quoted).collect();
            text += &cells.join(",");
            text += "\r\n";
            text
        })
    }

    /// Returns a table as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (index, row) in self.rows().iter().enumerate() {
            let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if index == 0 {
                let _ = writeln!(text, "|{}", " --- |".repeat(row.len()));
            }
        }
        text
    }

    /// The names of the columns, and the values of each launch.
    fn rows(&self) -> Vec<Vec<String>> {
        let all: Vec<Vec<Column>> = self.0.iter().map(Measurement::columns).collect();
        let names = all.first().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let values = all.iter().map(|row| row.iter().map(|(_, value)| shown(value)).collect());
        std::iter::once(names).chain(values).collect()
    }
}

/// Formats the kernels of an iteration as a table.
pub fn listing(kernels: &[Listed]) -> String {
    let mut table = Table::new();
    let head = ["kernel", "source", "launches", "shapes", "largest", "MB"];
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(head);
    for kernel in kernels {
        let (shape, _, bytes) = kernel.shapes.first().cloned().unwrap_or_default();
        table.add_row([
            kernel.name.into(),
            format!("kernels/{}:{}", kernel.file, kernel.line),
            kernel.calls.to_string(),
            kernel.shapes.len().to_string(),
            shape,
            format!("{:.2}", bytes * 1e-6),
        ]);
    }
    for column in [2, 3, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}
