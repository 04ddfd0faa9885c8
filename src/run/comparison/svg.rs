//! Draws a chart as inline SVG: a line for each run, with a band of one standard deviation.

use std::fmt::Write;

use super::charts::{Chart, Line};
use super::history::Unit;
use super::spread::Spread;
use crate::run::page::escaped;

/// Size of a chart in SVG user units, which a page shows as about as many pixels, and on a phone
/// a little smaller.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 230.0;
/// Space for the numbers of the axes, and at the other sides.
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 28.0;
const EDGE: f64 = 12.0;
/// Most ticks of an axis beyond its origin.
const TICKS: usize = 5;
/// Lines with fewer points have a mark at each.
const MARKED: usize = 60;
/// Number of colors of lines that the style sheet defines.
pub const COLORS: usize = 8;

/// Returns the style that gives an element the color of a run.
pub fn color(run: usize) -> String {
    // Beyond the colors, lines are dashed.
    let dash = if run < COLORS { "" } else { "; --dash: 5 3" };
    format!("style=\"--run: var(--run{}){dash}\"", run % COLORS)
}

impl Chart {
    /// Draws the chart.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let last = points().map(|(step, _)| *step).max().unwrap_or(1).max(1) as f64;
        let upper = |value: &Spread| value.mean + band(value);
        let most = if self.curve.unit() == Unit::Percent { 100.0 } else { f64::INFINITY };
        let all = points().map(|(_, value)| upper(value)).filter(|upper| upper.is_finite());
        let largest = all.fold(0.0, f64::max).min(most);
        // Ticks of bytes are round in GiB.
        let scale = if self.curve.unit() == Unit::Bytes { f64::from(1 << 30) } else { 1.0 };
        let step_y = tick(largest / scale) * scale;
        let top = (largest / step_y).ceil().max(1.0) * step_y;
        let step_x = tick(last).max(1.0);
        let x = |step: f64| LEFT + step / last * (WIDTH - LEFT - EDGE);
        // A band may reach beyond what is possible.
        let height = |value: f64| (value / top).clamp(0.0, 1.0) * (HEIGHT - BOTTOM - EDGE);
        let y = |value: f64| HEIGHT - BOTTOM - height(value);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(&self.title())
        );
        for i in 0..=((top / step_y).round() as usize).min(TICKS) {
            let value = i as f64 * step_y;
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - EDGE,
                LEFT - 6.0,
                y(value) + 4.0,
                axis(value / scale),
                y = y(value)
            );
        }
        for i in 0..=((last / step_x).floor() as usize).min(TICKS) {
            let step = i as f64 * step_x;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(step),
                HEIGHT - 8.0,
                thousands(step)
            );
        }
        for line in &self.lines {
            self.draw(line, &mut svg, |step| x(step as f64), y);
        }
        svg + "</svg>\n"
    }

    fn draw(&self, line: &Line, svg: &mut String, x: impl Fn(u64) -> f64, y: impl Fn(f64) -> f64) {
        let color = color(line.color);
        let at = |step: u64, value: f64| format!("{:.1},{:.1}", x(step), y(value));
        if line.points.iter().any(|(_, value)| band(value) > 1e-6 * value.mean.abs()) {
            let upper = line.points.iter().map(|(step, v)| at(*step, v.mean + band(v)));
            let lower = line.points.iter().rev().map(|(step, v)| at(*step, v.mean - band(v)));
            let corners: Vec<String> = upper.chain(lower).collect();
            let _ =
                writeln!(svg, "<polygon class=\"band\" {color} points=\"{}\"/>", corners.join(" "));
        }
        let corners: Vec<String> = line.points.iter().map(|(step, v)| at(*step, v.mean)).collect();
        let _ = writeln!(
            svg,
            "<polyline class=\"line\" {color} points=\"{}\"><title>{}</title></polyline>",
            corners.join(" "),
            escaped(&line.run)
        );
        if line.points.len() >= MARKED {
            return;
        }
        for (step, value) in &line.points {
            let _ = writeln!(
                svg,
                "<circle class=\"mark\" {color} cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}, \
                 iteration {step}: {}</title></circle>",
                x(*step),
                y(value.mean),
                escaped(&line.run),
                value.shown(|value| self.value(value))
            );
        }
    }
}

/// Returns the standard deviation; 0 for a single run.
fn band(value: &Spread) -> f64 {
    if value.deviation.is_nan() { 0.0 } else { value.deviation }
}

/// Returns a round distance of ticks, so that there are at most [`TICKS`] up to `largest`.
fn tick(largest: f64) -> f64 {
    if !(largest > 0.0 && largest.is_finite()) {
        return 1.0;
    }
    let rough = largest / TICKS as f64;
    let power = 10f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0].into_iter().find(|round| round * power >= rough * 0.999);
    round.unwrap_or(10.0) * power
}

/// Formats a tick of the vertical axis.
fn axis(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        return format!("{value:.0e}");
    }
    // Without the noise of binary fractions.
    let rounded = (value * 1e6).round() / 1e6;
    if rounded >= 1e4 { thousands(rounded) } else { rounded.to_string() }
}

fn thousands(value: f64) -> String {
    if value < 1e3 { value.to_string() } else { format!("{}k", value / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let pairs = [(0.0, 1.0), (1.0, 0.2), (58.2, 20.0), (100.0, 20.0), (3.7, 1.0), (6e-5, 2e-5)];
        for (largest, expected) in pairs {
            let step = tick(largest);
            assert!((step - expected).abs() < 1e-9 * expected, "{largest}: {step}");
        }
        for power in -60..60 {
            let largest = 1.37f64.powi(power);
            let count = (largest / tick(largest)).floor();
            assert!((2.0..=5.0).contains(&count), "{largest}: {count}");
        }
        assert_eq!([0.6000000000000001, 0.0, 2e-5, 20000.0].map(axis), ["0.6", "0", "2e-5", "20k"]);
        assert_eq!([0.0, 500.0, 2500.0].map(thousands), ["0", "500", "2.5k"]);
    }
}
