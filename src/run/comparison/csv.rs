//! The numbers of the charts as CSV.

use super::runs::Comparison;

impl Comparison {
    /// Returns the numbers of all charts as CSV, one a line: the chart, the run, the number of
    /// iterations done, the value, and for runs of several seeds its standard deviation. IoU and
    /// shares are in percent, memory is in bytes.
    pub fn csv(&self) -> String {
        let mut out = String::from("chart,run,iterations,mean,standard deviation,seeds\n");
        for chart in self.charts() {
            let title = field(&chart.curve.title());
            for line in &chart.lines {
                let run = field(&line.run);
                for (step, value) in &line.points {
                    let (mean, seeds) = (value.mean, value.runs);
                    let deviation = match value.deviation.is_nan() {
                        true => String::new(),
                        false => value.deviation.to_string(),
                    };
                    out += &format!("{title},{run},{step},{mean},{deviation},{seeds}\n");
                }
            }
        }
        out
    }
}

/// Quotes a field if it has to be.
fn field(text: &str) -> String {
    if !text.contains([',', '"', '\n', '\r']) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('"', "\"\""))
}
