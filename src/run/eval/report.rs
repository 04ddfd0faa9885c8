//! An evaluation, for people and for programs.

use std::path::PathBuf;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::metrics::{Confusion, percent};
use crate::data::classes::Classes;

/// The validation images as they were found, by which a data set is told from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validated {
    /// Width and height of images, each once, in the order met.
    pub sizes: Vec<[usize; 2]>,
    /// Names of the folders that they are in (Cityscapes: the cities), each once, in the order met.
    pub folders: Vec<String>,
}

/// What was evaluated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// The configuration, as its user named it.
    pub config: String,
    /// None when it was a network in memory.
    pub checkpoint: Option<PathBuf>,
    /// Iterations the network has trained for, where known.
    pub iteration: Option<u64>,
    /// The whole configuration of the training, where the checkpoint holds it.
    pub training: Option<Value>,
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub subject: Subject,
    /// The whole configuration of the evaluation.
    pub configuration: Value,
    pub confusion: Confusion,
    pub classes: Classes,
    pub images: usize,
    pub data: Validated,
    /// Wall-clock time of the evaluation.
    pub seconds: f64,
}

impl Report {
    /// IoU and accuracy of every class, in percent, and the means below.
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

    /// Mean IoU over the 16 and the 13 classes that results on SYNTHIA are told for; nothing where
    /// the classes are not Cityscapes'.
    pub fn synthia(&self) -> impl Iterator<Item = (usize, f64)> {
        let c = &self.confusion;
        let known = self.classes.are_cityscapes();
        [(16, c.mean_iou_16()), (13, c.mean_iou_13())].into_iter().filter(move |_| known)
    }

    /// The means in one line.
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

    /// Everything, as JSON. Shares are from 0 to 1 and unrounded, those of absent classes `null`;
    /// `percent` holds the means as they are published.
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
        });
        if let (Value::Object(all), Value::Object(rest)) = (&mut json, rest) {
            all.extend(means);
            all.extend(rest);
        }
        json
    }
}

/// Percent with two decimals; a dash for a class that does not occur.
fn shown(share: f64) -> String {
    if share.is_nan() { "-".into() } else { format!("{:.2}", percent(share)) }
}
