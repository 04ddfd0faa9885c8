//! Renders a profile as one self-contained HTML page with a flame chart, a roofline plot and the
//! tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::measured::Measured;
use super::summary::{Group, Row};
use super::table::heading;
use super::units::{per_second, time};
use crate::run::page::{escaped, page};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Number of points in the roofline plot; the slowest ones are kept.
const POINTS: usize = 80;
/// Nodes of the flame chart below this share of the total time are omitted.
const MIN_SHARE: f64 = 1e-4;

impl Measured {
    /// Returns a self-contained HTML page.
    pub fn html(&self) -> String {
        let mut lines = heading(self).into_iter();
        let title = lines.next().unwrap_or_default();
        let about: String =
            lines.map(|line| format!("<p class=\"soft\">{}</p>\n", escaped(&line))).collect();
        let tables: String = Group::ALL.iter().map(|&group| table(self, group)).collect();
        // "</" could end the script element, so it is escaped in the data.
        let flame = flame(self).to_string().replace("</", "<\\/");
        let body = format!(
            "{about}<h2>Flame chart</h2>\n<p class=\"soft\">Pass, direction, layer, kernel; the width is the time. Click a bar to zoom in, or one above to zoom out.</p>\n<div id=\"flame\"></div>\n\
         <p id=\"details\" class=\"soft\">&nbsp;</p>\n<h2>Roofline</h2>\n{}{tables}\
         <script>\nconst flame = {flame};\n{SCRIPT}</script>\n",
            roofline(self)
        );
        page(&title, STYLE, &body)
    }
}

/// A node of the flame chart: its time and its children by name.
#[derive(Default)]
struct Node {
    seconds: f64,
    parts: BTreeMap<String, Node>,
}

impl Node {
    fn to_json(&self, name: &str, least: f64) -> Value {
        let parts = self.parts.iter().filter(|(_, part)| part.seconds >= least);
        let mut parts: Vec<(&String, &Node)> = parts.collect();
        parts.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
        let parts: Vec<Value> =
            parts.into_iter().map(|(name, part)| part.to_json(name, least)).collect();
        json!({"name": name, "seconds": self.seconds, "parts": parts})
    }
}

fn flame(m: &Measured) -> Value {
    let mut root = Node::default();
    for call in &m.profile.calls {
        let mut path = vec![call.place.scope.to_owned()];
        if !call.place.layer.is_empty() {
            path.push(if call.place.backward { "backward" } else { "forward" }.into());
            path.extend(call.place.layer.split('.').map(str::to_owned));
        }
        path.push(call.work.name());
        let mut node = &mut root;
        node.seconds += call.seconds;
        for part in path {
            node = node.parts.entry(part).or_default();
            node.seconds += call.seconds;
        }
    }
    root.to_json("iteration", root.seconds * MIN_SHARE)
}

/// Size and margins of the roofline plot, in SVG user units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 15.0;
/// FLOPs per byte at the plot's left and right edges. Kernels without FLOPs are drawn at the left
/// edge.
const MIN: f64 = 0.03;
const MAX: f64 = 3000.0;

/// Draws the roofline plot as SVG: FLOP/s against FLOPs per byte on logarithmic axes, with the
/// device's limit as the roof.
fn roofline(m: &Measured) -> String {
    let (top, decades) = (m.rates.matrix * 2.0, 5.0);
    let x = |intensity: f64| {
        let share = (intensity.clamp(MIN, MAX) / MIN).log10() / (MAX / MIN).log10();
        LEFT + share * (WIDTH - LEFT - 15.0)
    };
    let y = |rate: f64| {
        let share = 1.0 - ((top / rate.max(1.0)).log10() / decades).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    };
    let roof = |intensity: f64| (intensity * m.rates.memory).min(m.rates.matrix);
    let mut svg = format!(
        "<svg id=\"roofline\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Roofline plot\">\n"
    );
    for power in -1..=3 {
        let at = 10f64.powi(power);
        let (px, below) = (x(at), HEIGHT - BOTTOM + 18.0);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text x=\"{px:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{at}</text>",
            HEIGHT - BOTTOM
        );
    }
    for step in 0..5 {
        let rate = m.rates.matrix / 10f64.powi(step);
        let py = y(rate);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - 15.0,
            LEFT - 6.0,
            py + 4.0,
            per_second(rate, "")
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">FLOPs per byte (left edge: kernels that \
         only move bytes)</text>",
        (WIDTH + LEFT) / 2.0,
        HEIGHT - 10.0
    );
    let ridge = m.rates.matrix / m.rates.memory;
    let corners = [MIN, ridge.clamp(MIN, MAX), MAX];
    let line: Vec<String> =
        corners.iter().map(|&i| format!("{:.1},{:.1}", x(i), y(roof(i)))).collect();
    let _ = writeln!(svg, "<polyline class=\"roof\" points=\"{}\"/>", line.join(" "));
    for row in m.rows(Group::Shape).iter().take(POINTS) {
        let seconds = row.seconds.max(f64::MIN_POSITIVE);
        let intensity = row.flops / row.bytes.max(1.0);
        let rate = match row.flops > 0.0 {
            true => row.flops / seconds,
            false => MIN * row.bytes / seconds,
        };
        let memory = row.bytes / m.rates.memory >= row.flops / m.rates.matrix;
        let _ = writeln!(
            svg,
            "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{:.1}\"><title>{}: {}, {} calls, {:.1} % \
             of the time, {:.0} % of its bound</title></circle>",
            if memory { "memory" } else { "matrix" },
            x(intensity),
            y(rate),
            3.0 + 40.0 * row.share.sqrt(),
            escaped(&row.name),
            time(row.seconds),
            row.calls,
            100.0 * row.share,
            100.0 * row.bound / seconds
        );
    }
    svg + "</svg>\n"
}

fn table(m: &Measured, group: Group) -> String {
    let rows: String = m.rows(group).iter().map(line).collect();
    format!(
        "<h2>By {}</h2>\n<div class=\"scroll\"><table>\n<tr><th>{0}</th><th>calls</th><th>time</th>\
         <th>share</th><th>GB</th><th>GFLOP</th><th>GB/s</th><th>TFLOP/s</th><th>at least</th>\
         <th>of bound</th><th>gap</th></tr>\n{rows}</table></div>\n",
        group.name()
    )
}

fn line(row: &Row) -> String {
    let seconds = row.seconds.max(f64::MIN_POSITIVE);
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1} %</td><td>{:.3}</td><td>{:.2}</td>\
         <td>{:.1}</td><td>{:.3}</td><td>{}</td><td>{:.0} %</td><td>{}</td></tr>\n",
        escaped(&row.name),
        row.calls,
        time(row.seconds),
        100.0 * row.share,
        row.bytes * 1e-9,
        row.flops * 1e-9,
        row.bytes * 1e-9 / seconds,
        row.flops * 1e-12 / seconds,
        time(row.bound),
        100.0 * row.bound / seconds,
        time(row.gap)
    )
}
