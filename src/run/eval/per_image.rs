//! The result for each image of an evaluation, and which of them are the worst.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::metrics::Confusion;
use crate::data::classes::Classes;

/// The result for one image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageResult {
    /// The image.
    pub file: PathBuf,
    /// IoU of every class; NaN for one in neither prediction nor label.
    pub iou: Vec<f64>,
    /// Mean IoU over the classes that occur; NaN without labels.
    pub mean_iou: f64,
    /// Share of correct pixels; NaN without labels.
    pub accuracy: f64,
    /// Number of labeled pixels.
    pub pixels: u64,
}

impl ImageResult {
    /// Summarizes the confusion matrix of an image.
    pub fn new(file: PathBuf, confusion: &Confusion) -> ImageResult {
        ImageResult {
            file,
            iou: confusion.iou(),
            mean_iou: confusion.mean_iou(),
            accuracy: confusion.all_accuracy(),
            pixels: confusion.pixels(),
        }
    }
}

/// Returns the results as JSON: ratios from 0 to 1, `null` without labels, and the IoU of the
/// classes that occur by name.
pub fn json(images: &[ImageResult], classes: &Classes) -> Value {
    let one = |image: &ImageResult| {
        let iou: serde_json::Map<String, Value> = (image.iou.iter().enumerate())
            .filter(|(_, iou)| !iou.is_nan())
            .map(|(class, iou)| (classes.name(class), json!(iou)))
            .collect();
        json!({
            "file": image.file.display().to_string(),
            "mIoU": image.mean_iou,
            "aAcc": image.accuracy,
            "pixels": image.pixels,
            "IoU": iou,
        })
    };
    images.iter().map(one).collect()
}

/// Returns the results as CSV (RFC 4180), a line for each image: file, mean IoU, accuracy, labeled
/// pixels, and the IoU of every class, which is empty where the class is absent.
pub fn csv(images: &[ImageResult], classes: &Classes) -> String {
    let number = |x: f64| if x.is_nan() { String::new() } else { format!("{x:.6}") };
    let mut head: Vec<String> = ["file", "mIoU", "aAcc", "pixels"].map(Into::into).into();
    head.extend((0..classes.len()).map(|class| quoted(&classes.name(class))));
    let mut lines = vec![head.join(",")];
    for image in images {
        let file = quoted(&image.file.display().to_string());
        let mut cells = vec![file, number(image.mean_iou), number(image.accuracy)];
        cells.push(image.pixels.to_string());
        cells.extend(image.iou.iter().map(|&iou| number(iou)));
        lines.push(cells.join(","));
    }
    lines.push(String::new());
    lines.join("\r\n")
}

/// Quotes a field of a CSV file, if necessary.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_separators_are_quoted() {
        assert_eq!(quoted("a b.png"), "a b.png");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
