//! The confusion matrix as inline SVG.

use std::fmt::Write;

use crate::run::eval::report::Report;
use crate::run::page::escaped;

/// Side of a cell, and the room for the names, in SVG user units.
const CELL: f64 = 26.0;
const NAMES: f64 = 120.0;
/// Shares below this are not drawn: a hundredth of a percent is one pixel in ten thousand.
const LEAST: f64 = 1e-4;
/// Shares from this on are also written.
const WRITTEN: f64 = 0.01;
/// Most classes with which numbers fit into the cells.
const READABLE: usize = 32;

/// Draws the share of each label's pixels that each class was predicted for.
pub(super) fn section(report: &Report) -> String {
    let classes = report.confusion.classes();
    let side = NAMES + CELL * classes as f64;
    let mut svg = format!(
        "<svg id=\"confusion\" viewBox=\"0 0 {side} {side}\" role=\"img\" \
         aria-label=\"Confusion matrix\" style=\"max-width: {side}px\">\n"
    );
    for class in 0..classes {
        let (at, name) = (NAMES + CELL * (class as f64 + 0.5), report.classes.name(class));
        let name = escaped(&name);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <text transform=\"translate({:.1} {:.1}) rotate(-90)\">{name}</text>",
            NAMES - 6.0,
            at + 4.0,
            at + 4.0,
            NAMES - 6.0
        );
    }
    for (label, row) in report.confusion.counts().chunks(classes.max(1)).enumerate() {
        let all: u64 = row.iter().sum();
        for (predicted, &count) in row.iter().enumerate() {
            let share = count as f64 / all.max(1) as f64;
            if share < LEAST {
                continue;
            }
            let [x, y] = [predicted, label].map(|class| NAMES + CELL * class as f64);
            let kind = if label == predicted { "right" } else { "cell" };
            let _ = write!(
                svg,
                "<rect class=\"{kind}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{0:.1}\" \
                 fill-opacity=\"{:.3}\"><title>{} predicted as {}: {:.2} % ({count} pixels)</title>\
                 </rect>",
                CELL - 1.0,
                // Small shares would be invisible on a linear scale.
                share.sqrt(),
                escaped(&report.classes.name(label)),
                escaped(&report.classes.name(predicted)),
                100.0 * share
            );
            if share >= WRITTEN && classes <= READABLE {
                let (x, y) = (x + CELL / 2.0, y + CELL / 2.0 + 3.5);
                let _ = write!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" \
                     pointer-events=\"none\">{:.0}</text>",
                    100.0 * share
                );
            }
            svg.push('\n');
        }
    }
    format!(
        "<h2>Confusion matrix</h2>\n<p class=\"soft\">A row is a label, a column what was predicted \
         for its pixels, in percent of the row.</p>\n{svg}</svg>\n"
    )
}
