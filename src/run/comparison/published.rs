//! Published results of the tasks: facts that a run is put beside.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::run::eval::metrics::nan_mean;

/// Cityscapes' validation set, which all published results were measured on.
pub const IMAGES: u64 = 500;
pub const SIZE: [usize; 2] = [2048, 1024];
pub const CITIES: [&str; 3] = ["frankfurt", "lindau", "munster"];

/// The published results of one task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub title: String,
    /// Layouts of the two domains, as a configuration names them.
    pub source: String,
    pub target: String,
    /// Train ids of the columns.
    pub classes: Vec<usize>,
    pub means: Vec<Mean>,
    pub rows: Vec<Row>,
}

/// A mean that the table gives, and the train ids that it is taken over.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mean {
    pub name: String,
    pub classes: Vec<usize>,
}

impl Mean {
    /// Over those classes that have a number; `iou` is by train id.
    pub fn of(&self, iou: &[f64]) -> f64 {
        nan_mean(self.classes.iter().filter_map(|&class| iou.get(class).copied()))
    }
}

/// One method's results, in percent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub name: String,
    pub network: Network,
    /// This program's name of the method, where it has it.
    pub method: Option<String>,
    /// This program's configuration of the same thing.
    pub preset: Option<String>,
    /// As the table's classes; NaN where none is given.
    pub iou: Vec<f64>,
    /// As the table's means; NaN where none is given.
    pub means: Vec<f64>,
    /// What is odd about the numbers.
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    Cnn,
    Vit,
}

impl Network {
    /// What a backbone of this name is.
    pub fn of(backbone: &str) -> Network {
        if backbone.starts_with("mit_") { Network::Vit } else { Network::Cnn }
    }

    pub fn name(self) -> &'static str {
        match self {
            Network::Cnn => "CNN",
            Network::Vit => "ViT",
        }
    }
}

impl Table {
    /// IoU of a train id in a row of this table, percent; NaN where none is given.
    pub fn iou(&self, row: &Row, class: usize) -> f64 {
        let column = self.classes.iter().position(|&known| known == class);
        column.and_then(|column| row.iou.get(column).copied()).unwrap_or(f64::NAN)
    }
}

/// The tables that the program brings along.
///
/// # Errors
/// [`Error::Config`] when one cannot be read: a mistake of this program's.
pub fn tables() -> Result<Vec<Table>> {
    let texts = [
        ("gta_cityscapes", include_str!("published/gta_cityscapes.toml")),
        ("synthia_cityscapes", include_str!("published/synthia_cityscapes.toml")),
    ];
    let read = |(name, text)| {
        toml::from_str(text).map_err(|e| Error::config(format!("published/{name}.toml: {e}")))
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
            assert_eq!(table.rows.len(), 12);
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
                    // A class is rounded by 0.05 at most, and so is the mean.
                    right &= !whole || (mean.of(&iou) - published).abs() <= 0.1;
                }
                // One row's means stand in the right order here, and not where it was printed.
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
