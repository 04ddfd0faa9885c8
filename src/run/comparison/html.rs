//! Renders a comparison as one HTML page: what the runs measured, with bars for every class and all
//! published numbers, then their curves, images, settings and machines.

use super::charts::Chart;
use super::format::{footnotes, marked, number, signed};
use super::history::Curve;
use super::pictures;
use super::published::Row;
use super::run::Run;
use super::runs::Comparison;
use super::section::Section;
use super::settings::Setting;
use super::svg;
use crate::data::classes;
use crate::run::page::{escaped, page};

const STYLE: &str = include_str!("page.css");

impl Comparison {
    /// Returns a self-contained HTML page.
    pub fn html(&self) -> String {
        let names: Vec<&str> = self.runs().map(|run| run.name.as_str()).collect();
        let title = match &names[..] {
            [one] => (*one).to_owned(),
            all => format!("{} runs", all.len()),
        };
        let sections: String = self.sections.iter().map(section).collect();
        let body = format!(
            "<p class=\"soft\">by udass-raw {}; IoU in percent</p>\n{sections}{}{}{}{}",
            env!("CARGO_PKG_VERSION"),
            self.curves(),
            self.pictures(),
            self.settings(),
            self.machines(),
        );
        page(&title, STYLE, &body)
    }

    /// Draws the charts, those of single classes below the others.
    fn curves(&self) -> String {
        let charts = self.charts();
        if charts.is_empty() {
            return String::new();
        }
        let keys: String = self.runs().map(key).collect();
        let draw = |of_class: bool| -> String {
            let wanted = |chart: &&Chart| matches!(chart.curve, Curve::ClassIou(..)) == of_class;
            let figure = |chart: &Chart| {
                let title = escaped(&chart.title());
                format!("<figure><figcaption>{title}</figcaption>\n{}</figure>\n", chart.svg())
            };
            charts.iter().filter(wanted).map(figure).collect()
        };
        let several = self.runs().any(|run| run.members.len() > 1);
        let band =
            if several { ", with a band of one standard deviation over the seeds" } else { "" };
        let mut out = format!(
            "<h2>Curves</h2>\n<p class=\"soft\">over iterations{band}; of training, the mean of each \
             stretch</p>\n<p class=\"keys\">{keys}</p>\n<div class=\"charts\">\n{}</div>\n",
            draw(false)
        );
        let classes = draw(true);
        if !classes.is_empty() {
            out += &format!(
                "<h2>IoU by class</h2>\n<p class=\"keys\">{keys}</p>\n\
                 <div class=\"charts\">\n{classes}</div>\n"
            );
        }
        out
    }

    /// Shows the images that the runs have saved.
    fn pictures(&self) -> String {
        let mut out = String::new();
        let members = self.runs().flat_map(|run| &run.members);
        for member in members {
            let pictures = member.folder.iter().flat_map(|folder| pictures::of(folder));
            let figures: String = pictures
                .map(|picture| {
                    let caption = escaped(&picture.caption);
                    format!(
                        "<figure><img alt=\"{caption}\" width=\"{}\" height=\"{}\" src=\"{}\">\
                         <figcaption>{caption}</figcaption></figure>\n",
                        picture.width, picture.height, picture.uri
                    )
                })
                .collect();
            if !figures.is_empty() {
                let name = escaped(&member.name);
                out += &format!("<h3>{name}</h3>\n<div class=\"pictures\">\n{figures}</div>\n");
            }
        }
        if out.is_empty() { out } else { format!("<h2>Images</h2>\n{out}") }
    }

    /// Lists the settings in which each run differs from the nearest preset.
    fn settings(&self) -> String {
        let mut out = String::from("<h2>Settings</h2>\n");
        for run in self.runs() {
            let origin = match run.changed.len() {
                0 => run.origin(0),
                1 => format!("as preset {}, but for 1 setting", run.preset),
                count => format!("as preset {}, but for {count} settings", run.preset),
            };
            out += &format!("<h3>{}</h3>\n<p>{}</p>\n", escaped(&run.name), escaped(&origin));
            if !run.changed.is_empty() {
                out += &settings(&run.changed, &run.preset);
            }
        }
        out
    }

    /// Lists where and by what each run was trained.
    fn machines(&self) -> String {
        let mut rows = String::new();
        for member in self.runs().flat_map(|run| &run.members) {
            let history = &member.history;
            let text = |key: &str| {
                let found = history.machine.iter().find(|(known, _)| *known == key);
                found.map_or("–".into(), |(_, text)| escaped(text))
            };
            let version = match text("commit").as_str() {
                "–" => text("version"),
                commit => format!("{} ({commit})", text("version")),
            };
            if history.machine.is_empty() {
                continue;
            }
            rows += &format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{version}</td><td>{}</td></tr>\n",
                escaped(&member.name),
                text("device"),
                text("processor"),
                duration(history.seconds)
            );
        }
        if rows.is_empty() {
            return rows;
        }
        format!(
            "<h2>Hardware and versions</h2>\n<div class=\"scroll\"><table class=\"left\">\n\
             <tr><th>run</th><th>device</th><th>processor</th><th>udass-raw</th>\
             <th>time of all iterations</th></tr>\n{rows}</table></div>\n"
        )
    }
}

/// Returns a run's name with its color.
fn key(run: &Run) -> String {
    format!("<span class=\"line-key\" {}></span>{} ", svg::color(run.color), escaped(&run.name))
}

/// Formats a duration in its two largest units.
fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    match (minutes / 1440, minutes / 60, minutes) {
        (0, 0, 0) => format!("{seconds:.0} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds as u64 % 60),
        (0, hours, _) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

/// Builds the table of differing settings.
fn settings(settings: &[Setting], preset: &str) -> String {
    let line = |s: &Setting| {
        let [key, run, preset] = [&s.key, &s.run, &s.preset].map(|cell| escaped(cell));
        format!("<tr><td>{key}</td><td>{run}</td><td>{preset}</td></tr>\n")
    };
    let lines: String = settings.iter().map(line).collect();
    format!(
        "<div class=\"scroll\"><table>\n<tr><th>key</th><th>this run</th><th>{}</th></tr>\n\
         {lines}</table></div>\n",
        escaped(preset)
    )
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
    section.runs.iter().map(|run| (svg::color(run.color), run))
}

fn card(section: &Section, color: String, run: &Run) -> String {
    let mut means = String::new();
    for (index, mean) in section.means().iter().enumerate() {
        let ours = run.mean(mean);
        let published = section.row(run).map_or(String::new(), |(_, row)| {
            let published = row.means[index];
            let (gap, published) = (signed(ours.mean - published), number(published));
            format!(" <span class=\"soft\">{gap} against {published}</span>")
        });
        means.push_str(&format!(
            "<p><b>{}</b>{}{published}</p>",
            ours.percent(),
            escaped(&mean.name)
        ));
    }
    let tone = if run.foreign.is_empty() { "good" } else { "warn" };
    let mut text = format!(
        "<div class=\"card\" {color}>\n<h3>{}</h3>\n<p class=\"soft\">{}, {}</p>\n\
         <div class=\"means\">{means}</div>\n<p>{}</p>\n<p class=\"note {tone}\">{}</p>\n",
        escaped(&run.name),
        escaped(&run.describe()),
        escaped(&run.paths()),
        escaped(&section.verdict(run)),
        escaped(&section.data(run)),
    );
    if let Some(message) = section.settings(run) {
        if run.settings.is_empty() {
            text.push_str(&format!("<p class=\"note good\">{}</p>\n", escaped(&message)));
        } else {
            text.push_str(&format!(
                "<details><summary>{}</summary>\n{}</details>\n",
                escaped(&message),
                settings(&run.settings, section.preset(run).map_or("preset", String::as_str))
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
    for class in 0..section.classes.len() {
        let [r, g, b] = section.classes.color(class as u8).unwrap_or_default();
        let bars: String =
            colored(section).map(|(color, run)| bar(section, class, &color, run)).collect();
        out.push_str(&format!(
            "<div class=\"class\"><div class=\"name\"><span class=\"swatch\" \
             style=\"background: rgb({r}, {g}, {b})\"></span>{}</div><div>{bars}</div></div>\n",
            escaped(&section.classes.name(class))
        ));
    }
    out + "</div>\n"
}

fn bar(section: &Section, class: usize, color: &str, run: &Run) -> String {
    let ours = run.iou(class);
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
    let fill = if ours.mean.is_nan() { 0.0 } else { ours.mean };
    let gap = section
        .difference(run, class)
        .map_or(String::new(), |gap| format!(" <span class=\"soft\">{}</span>", signed(gap)));
    format!(
        "<div class=\"bar\" {color} title=\"{}\"><div class=\"track\"><div class=\"fill\" \
         style=\"width: {fill:.1}%\"></div>{marks}</div><div class=\"value\">{}{gap}</div></div>",
        escaped(&run.name),
        ours.percent()
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
        let iou = table.classes.iter().map(|&class| run.iou(class));
        let means = table.means.iter().map(|mean| run.mean(mean));
        let cells = means.chain(iou).map(|value| format!("<td>{}</td>", value.percent()));
        let cells: String = cells.collect();
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
