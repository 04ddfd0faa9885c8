//! An evaluation as one self-contained HTML page: IoU of every class, the confusion matrix as a
//! picture, and the worst images first.

mod matrix;
mod pictures;
mod worst;

use std::fmt::Write;

use super::metrics::percent;
use super::report::Report;
use crate::run::page::{escaped, page};

pub use pictures::Panels;
pub use worst::{Shown, Worst};

const STYLE: &str = include_str!("page.css");

/// Returns the page.
pub fn html(report: &Report, worst: &Worst) -> String {
    let title = format!("Evaluation of {}", report.subject.config);
    let mut body = String::new();
    let checkpoint = report.subject.checkpoint.as_ref();
    let iteration = report.subject.iteration.map(|n| format!("iteration {n}"));
    let about = checkpoint.map(|path| path.display().to_string()).into_iter().chain(iteration);
    let about: Vec<String> = about.chain([report.summary()]).collect();
    for line in about {
        let _ = writeln!(body, "<p class=\"soft\">{}</p>", escaped(&line));
    }
    body += &classes(report);
    body += &matrix::section(report);
    body += &images(worst);
    page(&title, STYLE, &body)
}

fn shown(share: f64) -> String {
    if share.is_nan() { "–".into() } else { format!("{:.2}", percent(share)) }
}

/// A table of the classes, each with its color.
fn classes(report: &Report) -> String {
    let (iou, accuracy) = (report.confusion.iou(), report.confusion.accuracy());
    let all = report.confusion.pixels().max(1) as f64;
    let labeled = report.confusion.labeled();
    let mut rows = String::new();
    for class in 0..report.classes.len() {
        let bar = if iou[class].is_nan() { 0.0 } else { 100.0 * iou[class] };
        let _ = writeln!(
            rows,
            "<tr><td><i class=\"swatch\" style=\"background: {}\"></i>{}</td>\
             <td class=\"bar\"><div style=\"width: {bar:.2}%\"></div></td><td>{}</td><td>{}</td>\
             <td>{:.2}</td></tr>",
            pictures::css(&report.classes, class),
            escaped(&report.classes.name(class)),
            shown(iou[class]),
            shown(accuracy[class]),
            100.0 * labeled[class] as f64 / all,
        );
    }
    format!(
        "<h2>Classes</h2>\n<div class=\"scroll\"><table>\n<tr><th>class</th><th></th><th>IoU</th>\
         <th>accuracy</th><th>of the pixels</th></tr>\n{rows}</table></div>\n"
    )
}

fn images(worst: &Worst) -> String {
    let mut text = format!(
        "<h2>Worst images</h2>\n<p class=\"soft\">The {} images with the lowest mean IoU over the \
         classes that occur in them. In the difference, red pixels are wrong, and dark ones have no \
         label. What is red although the prediction looks right may be a fault of the label.</p>\n",
        worst.shown().len()
    );
    for (place, image) in worst.shown().iter().enumerate() {
        let _ = writeln!(
            text,
            "<section>\n<h3>{}. {}</h3>\n<p class=\"soft\">mIoU {}, {} % of the labeled pixels are \
             right</p>\n<div class=\"panels\">",
            place + 1,
            escaped(&image.file.display().to_string()),
            shown(image.mean_iou),
            shown(image.accuracy),
        );
        for (title, url) in pictures::TITLES.iter().zip(&image.pictures.urls) {
            let size = image.pictures.size;
            let _ = writeln!(
                text,
                "<figure><img src=\"{url}\" width=\"{}\" height=\"{}\" alt=\"{title}\">\
                 <figcaption>{title}</figcaption></figure>",
                size.width, size.height
            );
        }
        text += "</div>\n</section>\n";
    }
    text
}
