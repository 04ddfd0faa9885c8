//! An evaluation, for people and for programs.

use std::path::PathBuf;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::metrics::{Confusion, percent};
use crate::data::classes;

/// The validation images as they were found, by which a data set is told from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validated {
    /// Width and height of images, each once, in the order met.
    pub sizes: Vec<[usize; 2]>,
    /// Names of the folders that they are in (Cityscapes: the cities), each once, in the order met.
    pub folders: Vec<String>,
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub confusion: Confusion,
    /// The configuration, as its user named it.
    pub config: String,
    /// What was evaluated; none when it was a network in memory.
    pub checkpoint: Option<PathBuf>,
    /// Iterations the network has trained for, where known.
    pub iteration: Option<u64>,
    pub images: usize,
    pub data: Validated,
    /// The whole configuration of the evaluation.
    pub configuration: Option<Value>,
    /// That of the training, where the checkpoint holds it.
    pub training: Option<Value>,
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
            table.add_row([classes::name(class), shown(iou[class]), shown(accuracy[class])]);
        }
        let (mean, accuracy) = (self.confusion.mean_iou(), self.confusion.mean_accuracy());
        table.add_row(["mean".into(), shown(mean), shown(accuracy)]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\n{}", self.summary())
    }

    /// The means in one line.
    pub fn summary(&self) -> String {
        let rate = self.images as f64 / self.seconds;
        format!(
            "mIoU {}  aAcc {}  ({} images in {:.1} s, {rate:.2} images/s)",
            shown(self.confusion.mean_iou()),
            shown(self.confusion.all_accuracy()),
            self.images,
            self.seconds,
        )
    }

    /// Everything, as JSON. Shares are from 0 to 1 and unrounded, those of absent classes `null`;
    /// `percent` holds the means as they are published.
    pub fn to_json(&self) -> Value {
        let c = &self.confusion;
        let (iou, accuracy) = (c.iou(), c.accuracy());
        let classes: Vec<Value> = (0..c.classes())
            .map(|k| json!({"name": classes::name(k), "IoU": iou[k], "Acc": accuracy[k]}))
            .collect();
        json!({
            "config": self.config,
            "checkpoint": self.checkpoint.as_ref().map(|path| path.display().to_string()),
            "iteration": self.iteration,
            "version": env!("CARGO_PKG_VERSION"),
            "images": self.images,
            "data": self.data,
            "pixels": c.pixels(),
            "seconds": self.seconds,
            "mIoU": c.mean_iou(),
            "mIoU16": c.mean_iou_16(),
            "mIoU13": c.mean_iou_13(),
            "mAcc": c.mean_accuracy(),
            "aAcc": c.all_accuracy(),
            "percent": {
                "mIoU": percent(c.mean_iou()),
                "mIoU16": percent(c.mean_iou_16()),
                "mIoU13": percent(c.mean_iou_13()),
                "mAcc": percent(c.mean_accuracy()),
                "aAcc": percent(c.all_accuracy()),
            },
            "classes": classes,
            "configuration": self.configuration,
            "training": self.training,
            "confusion_matrix": c.counts().chunks(c.classes().max(1)).collect::<Vec<_>>(),
        })
    }
}

/// Percent with two decimals; a dash for a class that does not occur.
fn shown(share: f64) -> String {
    if share.is_nan() { "-".into() } else { format!("{:.2}", percent(share)) }
}
