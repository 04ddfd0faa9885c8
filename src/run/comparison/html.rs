//! Renders a comparison as one HTML page: bars for every class, then all numbers.

use super::format::{footnotes, marked, number, signed};
use super::published::Row;
use super::run::Run;
use super::runs::Comparison;
use super::section::Section;
use crate::data::classes;

const STYLE: &str = include_str!("page.css");
/// Number of run colors that the style sheet defines.
const COLORS: usize = 4;

impl Comparison {
    /// Returns a self-contained HTML page.
    pub fn html(&self) -> String {
        let sections: Vec<String> = self.sections.iter().map(section).collect();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Comparison with published results</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Comparison with published results</h1>\n\
         <p class=\"soft\">IoU of every class in percent, by udass-raw {}</p>\n{}</body>\n</html>\n",
            env!("CARGO_PKG_VERSION"),
            sections.concat()
        )
    }
}

fn section(section: &Section) -> String {
    let cards: String = colored(section).map(|(color, run)| card(section, color, run)).collect();
    let mut page = format!(
        "<h2>{}</h2>\n<div class=\"cards\">\n{cards}</div>\n{}",
        escaped(section.title()),
        chart(section)
    );
    if section.table.is_some() {
        page.push_str(&numbers(section));
    }
    page
}

/// Returns each run with the style attribute for its color.
fn colored(section: &Section) -> impl Iterator<Item = (String, &Run)> {
    let color = |index: usize| format!("style=\"--run: var(--run{})\"", index % COLORS);
    section.runs.iter().enumerate().map(move |(index, run)| (color(index), run))
}

fn card(section: &Section, color: String, run: &Run) -> String {
    let mut means = String::new();
    for (index, mean) in section.means().iter().enumerate() {
        let ours = mean.of(&run.iou);
        let published = section.row(run).map_or(String::new(), |(_, row)| {
            let published = row.means[index];
            let (gap, published) = (signed(ours - published), number(published));
            format!(" <span class=\"soft\">{gap} against {published}</span>")
        });
        means.push_str(&format!(
            "<p><b>{}</b>{}{published}</p>",
            number(ours),
            escaped(&mean.name)
        ));
    }
    let tone = if run.foreign.is_empty() { "good" } else { "warn" };
    let mut text = format!(
        "<div class=\"card\" {color}>\n<h3>{}</h3>\n<p class=\"soft\">{}, {}</p>\n\
         <div class=\"means\">{means}</div>\n<p>{}</p>\n<p class=\"note {tone}\">{}</p>\n",
        escaped(&run.name),
        escaped(&run.describe()),
        escaped(&run.path.display().to_string()),
        escaped(&section.verdict(run)),
        escaped(&section.data(run)),
    );
    if let Some(message) = section.settings(run) {
        if run.settings.is_empty() {
            text.push_str(&format!("<p class=\"note good\">{}</p>\n", escaped(&message)));
        } else {
            let lines: String = (run.settings.iter())
                .map(|s| {
                    let cells = [&s.key, &s.run, &s.published].map(|cell| escaped(cell));
                    format!(
                        "<tr><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                        cells[0], cells[1], cells[2]
                    )
                })
                .collect();
            text.push_str(&format!(
                "<details><summary>{}</summary>\n<div class=\"scroll\"><table>\n\
                 <tr><th>key</th><th>this run</th><th>preset</th></tr>\n{lines}</table></div></details>\n",
                escaped(&message)
            ));
        }
    }
    text + "</div>\n"
}

/// Draws a bar for every class and run, with the published rows as marks on it.
fn chart(section: &Section) -> String {
    let mut out = String::from("<h3>Classes</h3>\n<div class=\"chart\">\n");
    if section.runs.iter().any(|run| run.row.is_some()) {
        out.push_str(
            "<p class=\"soft key\">bar: the run<i class=\"own\"></i>its published row\
             <i class=\"tick\"></i>the other published rows for the same kind of network</p>\n",
        );
    }
    for (class, known) in classes::CITYSCAPES.iter().enumerate() {
        let [r, g, b] = known.color;
        let bars: String =
            colored(section).map(|(color, run)| bar(section, class, &color, run)).collect();
        out.push_str(&format!(
            "<div class=\"class\"><div class=\"name\"><span class=\"swatch\" \
             style=\"background: rgb({r}, {g}, {b})\"></span>{}</div><div>{bars}</div></div>\n",
            known.name
        ));
    }
    out + "</div>\n"
}

fn bar(section: &Section, class: usize, color: &str, run: &Run) -> String {
    let ours = run.iou.get(class).copied().unwrap_or(f64::NAN);
    let mut marks = String::new();
    if let Some((table, own)) = section.row(run) {
        let mark = |row: &Row, kind: &str| {
            let iou = table.iou(row, class);
            if iou.is_nan() {
                return String::new();
            }
            format!(
                "<i{kind} style=\"left: {iou:.1}%\" title=\"{} {iou:.1}\"></i>",
                escaped(&row.name)
            )
        };
        let others = table.rows.iter().filter(|row| row.network == own.network);
        marks.extend(others.filter(|row| row.name != own.name).map(|row| mark(row, "")));
        marks.push_str(&mark(own, " class=\"own\""));
    }
    let fill = if ours.is_nan() { 0.0 } else { ours };
    let gap = section
        .difference(run, class)
        .map_or(String::new(), |gap| format!(" <span class=\"soft\">{}</span>", signed(gap)));
    format!(
        "<div class=\"bar\" {color} title=\"{}\"><div class=\"track\"><div class=\"fill\" \
         style=\"width: {fill:.1}%\"></div>{marks}</div><div class=\"value\">{}{gap}</div></div>",
        escaped(&run.name),
        number(ours)
    )
}

/// Builds the table of all methods: one row for each, with columns for means and classes.
fn numbers(section: &Section) -> String {
    let Some(table) = &section.table else { return String::new() };
    let mut out =
        String::from("<h3>All methods</h3>\n<div class=\"scroll\"><table>\n<tr><th>method</th>");
    table.means.iter().for_each(|mean| out.push_str(&format!("<th>{}</th>", escaped(&mean.name))));
    for &class in &table.classes {
        out.push_str(&format!("<th>{}</th>", classes::CITYSCAPES[class].name));
    }
    out.push_str("</tr>\n");
    for (color, run) in colored(section) {
        let iou =
            table.classes.iter().map(|&class| run.iou.get(class).copied().unwrap_or(f64::NAN));
        let means = table.means.iter().map(|mean| mean.of(&run.iou));
        let cells: String = means.chain(iou).map(|x| format!("<td>{}</td>", number(x))).collect();
        out.push_str(&format!(
            "<tr class=\"run\" {color}><td>{}</td>{cells}</tr>\n",
            escaped(&run.name)
        ));
    }
    // The best published value of each column.
    let columns = |row: &Row| row.means.iter().chain(&row.iou).copied().collect::<Vec<f64>>();
    let mut best = vec![f64::NAN; table.classes.len() + table.means.len()];
    for row in &table.rows {
        best.iter_mut().zip(columns(row)).for_each(|(best, x)| *best = best.max(x));
    }
    let mut network = None;
    for row in &table.rows {
        let block = if network == Some(row.network) { "" } else { " class=\"block\"" };
        network = Some(row.network);
        let cells: String = (columns(row).into_iter().zip(&best))
            .map(|(x, best)| {
                let class = if x == *best { " class=\"best\"" } else { "" };
                format!("<td{class}>{}</td>", number(x))
            })
            .collect();
        out.push_str(&format!("<tr{block}><td>{}</td>{cells}</tr>\n", escaped(&marked(row))));
    }
    out.push_str("</table></div>\n");
    for note in footnotes(&section.rows()) {
        out.push_str(&format!("<p class=\"soft\">{}</p>\n", escaped(&note)));
    }
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
