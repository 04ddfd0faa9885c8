//! Formats a profile for a terminal.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use super::measured::Measured;
use super::rates::Rates;
use super::summary::{Group, Row};
use super::units::{per_second, time};

/// A style without lines between the rows.
const STYLE: TableStyle = UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());

impl Measured {
    /// Returns all tables as text, with at most `most` rows in those by kernel, shape and layer.
    pub fn terminal(&self, most: usize) -> String {
        let mut text = heading(self).join("\n");
        for group in Group::ALL {
            let rows = self.rows(group);
            let shown = match group {
                Group::Pass | Group::Stage => &rows[..],
                Group::Kernel | Group::Shape | Group::Layer => &rows[..rows.len().min(most)],
            };
            text.push_str(&format!("\n\n{}", grid(group, shown, self)));
            if shown.len() < rows.len() {
                let share: f64 = shown.iter().map(|row| row.share).sum();
                let (count, share) = (rows.len() - shown.len(), 100.0 * (1.0 - share));
                text.push_str(&format!("\n{count} more, {share:.1} % of the time"));
            }
        }
        text
    }
}

/// Returns the summary of the profile, one string per line.
pub(super) fn heading(m: &Measured) -> Vec<String> {
    let Rates { memory, matrix } = m.rates;
    let (inside, calls) = (m.inside(), m.profile.calls.len());
    let (bytes, flops) = m
        .profile
        .calls
        .iter()
        .fold((0.0, 0.0), |(bytes, flops), call| (bytes + call.bytes, flops + call.flops));
    let mut lines = vec![format!("{} on {}", m.config, m.device)];
    let peak = format!("{} and {}", per_second(memory, "B"), per_second(matrix, "FLOP"));
    lines.push(match (m.predicted, &m.modeled) {
        (true, Some(modeled)) => format!(
            "modeled, not measured: {} on an {} expected in {calls} calls ({} if nothing \
             overlaps); at least {}, at {peak}",
            time(modeled.seconds()),
            modeled.machine,
            time(modeled.sum()),
            time(m.bound())
        ),
        (true, None) => {
            format!("modeled, not measured: at least {} in {calls} calls, at {peak}", time(inside))
        }
        (false, _) => format!(
            "{} in {calls} calls and {} between them; iterations without the profiler took {}",
            time(inside),
            time(m.profile.seconds - inside),
            m.samples.iter().map(|&s| time(s)).collect::<Vec<_>>().join(", ")
        ),
    });
    lines.push(format!(
        "{:.1} GB and {:.3} TFLOP; the step's peak memory is {} MiB",
        bytes * 1e-9,
        flops * 1e-12,
        m.memory.peak >> 20
    ));
    if !m.predicted {
        lines.push(format!(
            "bound: bytes at the {} of a large copy, sum or search, or FLOPs at the {} of a large matmul; \
             what fits in a cache can be faster",
            per_second(memory, "B"),
            per_second(matrix, "FLOP")
        ));
    }
    lines
}

fn grid(group: Group, rows: &[Row], m: &Measured) -> Table {
    let mut table = Table::new();
    let mut heads = vec![group.name(), "calls", "time", "share", "GB", "GFLOP", "GB/s", "TFLOP/s"];
    let (modeled, measured) = (m.modeled.is_some(), !m.predicted);
    if modeled {
        heads.push("at least");
    }
    if modeled || measured {
        heads.push("of bound");
    }
    if measured {
        heads.push("gap");
    }
    table.load_style(STYLE).set_header(heads);
    for row in rows {
        let seconds = row.seconds.max(f64::MIN_POSITIVE);
        let mut cells = vec![
            row.name.clone(),
            row.calls.to_string(),
            time(row.seconds),
            format!("{:.1} %", 100.0 * row.share),
            format!("{:.3}", row.bytes * 1e-9),
            some(row.flops * 1e-9, 2),
            format!("{:.1}", row.bytes * 1e-9 / seconds),
            some(row.flops * 1e-12 / seconds, 3),
        ];
        if modeled {
            cells.push(time(row.bound));
        }
        if modeled || measured {
            cells.push(format!("{:.0} %", 100.0 * row.bound / seconds));
        }
        if measured {
            cells.push(time(row.gap));
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Formats a number, or returns an empty string for zero.
fn some(x: f64, digits: usize) -> String {
    if x > 0.0 { format!("{x:.digits$}") } else { String::new() }
}
