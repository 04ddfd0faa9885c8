//! Datasets that the user describes: `layout = "files"`, and the classes of `[dataset]`.

use std::fmt;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The classes of a run, in the order of the network's outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// Class names. An empty list means Cityscapes' 19 classes.
    pub names: Vec<String>,
    /// Colors of the classes in images. An empty list means generated colors.
    pub colors: Vec<LabelValue>,
}

/// Globs for the files of a dataset, and the values in its labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// Glob of the training images, relative to the root. An image and a label belong together if
    /// their wildcards match the same text.
    pub images: String,
    /// Glob of the training labels.
    pub labels: String,
    /// Glob of the validation images.
    pub val_images: String,
    /// Glob of the validation labels.
    pub val_labels: String,
    /// Label values of each class. An empty list means that labels hold class numbers.
    pub ids: Vec<Vec<LabelValue>>,
    /// Values that mean unlabeled.
    pub ignore: Vec<LabelValue>,
    /// Treats every value that `ids` does not list as unlabeled; otherwise it is an error.
    pub ignore_others: bool,
}

/// A value of a pixel in a label file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelValue {
    /// A number, in a palette or grayscale label.
    Id(u16),
    /// An RGB color, written `"#804080"` in a configuration.
    Color([u8; 3]),
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            LabelValue::Id(id) => id.fmt(f),
            LabelValue::Color([r, g, b]) => write!(f, "\"#{r:02x}{g:02x}{b:02x}\""),
        }
    }
}

impl Serialize for LabelValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            LabelValue::Id(id) => id.serialize(serializer),
            color => color.to_string().trim_matches('"').serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for LabelValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = LabelValue;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an id from 0 to 65535 or a color such as \"#804080\"")
    }

    fn visit_i64<E: serde::de::Error>(self, id: i64) -> Result<LabelValue, E> {
        let id = u16::try_from(id).map_err(|_| E::invalid_value(Unexpected::Signed(id), &self))?;
        Ok(LabelValue::Id(id))
    }

    fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<LabelValue, E> {
        let id =
            u16::try_from(id).map_err(|_| E::invalid_value(Unexpected::Unsigned(id), &self))?;
        Ok(LabelValue::Id(id))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<LabelValue, E> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let number = number.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
        let [_, r, g, b] = number.to_be_bytes();
        Ok(LabelValue::Color([r, g, b]))
    }
}
