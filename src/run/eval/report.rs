//! The result of an evaluation, as a table and as JSON.

use std::path::PathBuf;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::metrics::{Confusion, percent};
use super::per_image::{self, ImageResult};
use crate::data::classes::Classes;

/// Properties of the validation images, from which reports recognize the dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validated {
    /// Distinct image sizes (width and height), in the order of their first occurrence.
    pub sizes: Vec<[usize; 2]>,
    /// Distinct names of the images' folders (in Cityscapes, the cities), in the order of their
    /// first occurrence.
    pub folders: Vec<String>,
}

/// Describes what was evaluated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// Name of the configuration, as given by the user.
    pub config: String,
    /// The checkpoint, or `None` for a network in memory.
    pub checkpoint: Option<PathBuf>,
    /// Iterations that the network was trained for, if known.
    pub iteration: Option<u64>,
    /// The whole configuration of the training, if the checkpoint holds it.
    pub training: Option<Value>,
}

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What was evaluated.
    pub subject: Subject,
    /// The whole configuration of the evaluation.
    pub configuration: Value,
    /// Pixel counts by label and prediction.
    pub confusion: Confusion,
    /// The classes, which index the confusion matrix.
    pub classes: Classes,
    /// Number of images.
    pub images: usize,
    /// The result for each image, in the dataset's order.
    pub per_image: Vec<ImageResult>,
    /// Properties of the images.
    pub data: Validated,
    /// Wall-clock time of the evaluation.
    pub seconds: f64,
}

impl Report {
    /// Formats IoU and accuracy of every class and their means as a table, in percent.
    pub fn table(&self) -> String {
        let (iou, accuracy) = (self.confusion.iou(), self.confusion.accuracy());
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["class", "IoU", "accuracy"]);
        for class in 0..self.confusion.classes() {
            table.add_row([self.classes.name(class), shown(iou[class]), shown(accuracy[class])]);
        }
        let (mean, accuracy) = (self.confusion.mean_iou(), self.confusion.mean_accuracy());
        table.add_row(["mean".into(), shown(mean), shown(accuracy)]);
        for (classes, mean) in self.synthia() {
            table.add_row([format!("mean of SYNTHIA's {classes}"), shown(mean), String::new()]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\n{}", self.summary())
    }

    /// Returns the mean IoU over the 16- and 13-class subsets used for SYNTHIA, each with its
    /// number of classes. Yields nothing if the classes are not Cityscapes'.
    pub fn synthia(&self) -> impl Iterator<Item = (usize, f64)> {
        let c = &self.confusion;
        let known = self.classes.are_cityscapes();
        [(16, c.mean_iou_16()), (13, c.mean_iou_13())].into_iter().filter(move |_| known)
    }

    /// Formats the means and the throughput in one line.
    pub fn summary(&self) -> String {
        let rate = self.images as f64 / self.seconds;
        let synthia: String =
            self.synthia().map(|(n, mean)| format!("  mIoU{n} {}", shown(mean))).collect();
        format!(
            "mIoU {}{synthia}  aAcc {}  ({} images in {:.1} s, {rate:.2} images/s)",
            shown(self.confusion.mean_iou()),
            shown(self.confusion.all_accuracy()),
            self.images,
            self.seconds,
        )
    }

    /// Returns the whole result as JSON. Ratios are from 0 to 1 and unrounded, and `null` for
    /// absent classes; `percent` holds the means in percent, rounded as in publications.
    pub fn to_json(&self) -> Value {
        let (c, subject) = (&self.confusion, &self.subject);
        let (iou, accuracy) = (c.iou(), c.accuracy());
        let classes: Vec<Value> = (0..c.classes())
            .map(|k| json!({"name": self.classes.name(k), "IoU": iou[k], "Acc": accuracy[k]}))
            .collect();
        let mut means = Map::new();
        means.insert("mIoU".into(), json!(c.mean_iou()));
        means.extend(self.synthia().map(|(n, mean)| (format!("mIoU{n}"), json!(mean))));
        means.insert("mAcc".into(), json!(c.mean_accuracy()));
        means.insert("aAcc".into(), json!(c.all_accuracy()));
        let percent: Map<String, Value> = (means.iter())
            .map(|(name, mean)| (name.clone(), json!(mean.as_f64().map(percent))))
            .collect();
        let mut json = json!({
            "config": subject.config,
            "checkpoint": subject.checkpoint.as_ref().map(|path| path.display().to_string()),
            "iteration": subject.iteration,
            "version": env!("CARGO_PKG_VERSION"),
            "images": self.images,
            "data": self.data,
            "pixels": c.pixels(),
            "seconds": self.seconds,
        });
        let rest = json!({
            "percent": percent,
            "classes": classes,
            "configuration": self.configuration,
            "training": subject.training,
            "confusion_matrix": c.counts().chunks(c.classes().max(1)).collect::<Vec<_>>(),
            "per_image": per_image::json(&self.per_image, &self.classes),
        });
        if let (Value::Object(all), Value::Object(rest)) = (&mut json, rest) {
            all.extend(means);
            all.extend(rest);
        }
        json
    }
}

/// Formats a ratio in percent with two decimals; NaN, for an absent class, becomes a dash.
fn shown(share: f64) -> String {
    if share.is_nan() { "-".into() } else { format!("{:.2}", percent(share)) }
}
