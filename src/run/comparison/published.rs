//! Published results of the tasks, for comparison with runs.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::run::eval::metrics::nan_mean;

/// Number of images in Cityscapes' validation set, on which all published results were measured.
pub const IMAGES: u64 = 500;
/// Width and height of Cityscapes' images.
pub const SIZE: [usize; 2] = [2048, 1024];
/// Cities of Cityscapes' validation set.
pub const CITIES: [&str; 3] = ["frankfurt", "lindau", "munster"];

/// The published results of one task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The task's name.
    pub title: String,
    /// Layout of the source dataset, as a configuration names it.
    pub source: String,
    /// Layout of the target dataset.
    pub target: String,
    /// Where the rows were published, unless they say otherwise.
    pub origin: String,
    /// Train ids of the columns.
    pub classes: Vec<usize>,
    /// The means that the table reports.
    pub means: Vec<Mean>,
    /// One row for each method and kind of network.
    pub rows: Vec<Row>,
}

/// A mean that a table reports, over a set of classes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mean {
    /// Name of the column, such as `mIoU`.
    pub name: String,
    /// Train ids that the mean is taken over.
    pub classes: Vec<usize>,
}

impl Mean {
    /// Returns the mean over those of its classes that are not NaN in `iou`, which is indexed by
    /// train id.
    pub fn of(&self, iou: &[f64]) -> f64 {
        nan_mean(self.classes.iter().filter_map(|&class| iou.get(class).copied()))
    }
}

/// One method's results, in percent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The method's name as published.
    pub name: String,
    /// Kind of backbone.
    pub network: Network,
    /// This program's name for the method, if it implements it.
    pub method: Option<String>,
    /// The preset of this program that configures the same experiment.
    pub preset: Option<String>,
    /// IoU of each of the table's classes; NaN where none was published.
    pub iou: Vec<f64>,
    /// Each of the table's means; NaN where none was published.
    pub means: Vec<f64>,
    /// A remark about inconsistent numbers.
    pub note: Option<String>,
    /// Where the row was published.
    #[serde(default)]
    pub origin: String,
}

/// The kind of a network, by its backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A convolutional backbone (ResNet).
    Cnn,
    /// A transformer backbone (MiT).
    Vit,
}

impl Network {
    /// Returns the kind of the backbone with this name.
    pub fn of(backbone: &str) -> Network {
        if backbone.starts_with("mit_") { Network::Vit } else { Network::Cnn }
    }

    /// Returns the kind's name, as shown to the user.
    pub fn name(self) -> &'static str {
        match self {
            Network::Cnn => "CNN",
            Network::Vit => "ViT",
        }
    }
}

impl Table {
    /// Returns the IoU of a train id in a row of this table, in percent; NaN where none was
    /// published.
    pub fn iou(&self, row: &Row, class: usize) -> f64 {
        let column = self.classes.iter().position(|&known| known == class);
        column.and_then(|column| row.iou.get(column).copied()).unwrap_or(f64::NAN)
    }
}

/// Returns the tables of published results that are built into the program.
///
/// # Errors
/// [`Error::Config`] if a table cannot be parsed, which is a bug in this program.
pub fn tables() -> Result<Vec<Table>> {
    let texts = [
        ("gta_cityscapes", include_str!("published/gta_cityscapes.toml")),
        ("synthia_cityscapes", include_str!("published/synthia_cityscapes.toml")),
    ];
    let read = |(name, text)| {
        let mut table: Table = toml::from_str(text)
            .map_err(|e| Error::config(format!("published/{name}.toml: {e}")))?;
        for row in table.rows.iter_mut().filter(|row| row.origin.is_empty()) {
            row.origin.clone_from(&table.origin);
        }
        Ok(table)
    };
    texts.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, METHODS};

    #[test]
    fn the_means_are_those_of_the_classes_unless_a_note_says_otherwise() {
        for table in tables().unwrap() {
            assert_eq!(table.rows.len(), 14);
            for row in &table.rows {
                let at = format!("{}, {}", table.title, row.name);
                assert_eq!(row.iou.len(), table.classes.len(), "{at}");
                assert_eq!(row.means.len(), table.means.len(), "{at}");
                assert!(row.iou.iter().all(|x| x.is_nan() || (0.0..=100.0).contains(x)), "{at}");
                let iou: Vec<f64> = (0..19).map(|class| table.iou(row, class)).collect();
                let mut right = true;
                for (mean, &published) in table.means.iter().zip(&row.means) {
                    let whole = mean.classes.iter().all(|&class| !iou[class].is_nan());
                    assert_eq!(whole, !published.is_nan(), "{at}: {}", mean.name);
                    // Rounding changes a class, and so the mean, by at most 0.05; rounding the mean
                    // adds 0.05.
                    right &= !whole || (mean.of(&iou) - published).abs() <= 0.1;
                }
                // One row's means were printed in the wrong order; here they are in the right one.
                let exchanged = row.note.as_ref().is_some_and(|note| note.contains("exchanged"));
                assert_eq!(right, row.note.is_none() || exchanged, "{at}");
            }
        }
    }

    #[test]
    fn methods_and_presets_are_the_programs() {
        for table in tables().unwrap() {
            for row in &table.rows {
                assert!(row.method.iter().all(|method| METHODS.contains(&method.as_str())));
                let Some(preset) = &row.preset else { continue };
                let config = Config::preset(preset).unwrap();
                assert_eq!(Network::of(&config.network.backbone), row.network, "{preset}");
                assert_eq!(
                    (&config.source.layout, &config.target.layout),
                    (&table.source, &table.target)
                );
            }
        }
    }
}
