//! Reads the description of a network from its weight file.

use crate::checkpoint::identity::{configuration, identify};
use crate::checkpoint::tensor_file::TensorFile;
use crate::config::{Config, DatasetConfig};
use crate::data::classes::{CITYSCAPES, Classes};
use crate::{Error, Result};

/// A class that a model tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Class {
    /// The name.
    pub name: String,
    /// The color in images, RGB.
    pub color: [u8; 3],
}

/// Returns the configuration in a file. A file of another program has none; its network is then
/// known by its tensors, and its windows are those of the published setting.
///
/// # Errors
/// [`Error::Weights`] if it is no segmentation network of this program; [`Error::Config`] if its
/// configuration is malformed.
pub(super) fn config_of(file: &TensorFile) -> Result<Config> {
    let path = file.path();
    if let Some(text) = configuration(file)? {
        return Config::from_toml(&text, &format!("configuration in {}", path.display()));
    }
    let unknown = || Error::weights(path, "holds no segmentation network that is known here");
    let network = identify(file)?.network().ok_or_else(unknown)?;
    let mut config = Config::preset("gta_vit")?;
    if network.classes != CITYSCAPES.len() {
        let names = (0..network.classes).map(|class| format!("class {class}")).collect();
        config.dataset = DatasetConfig { names, colors: Vec::new() };
    }
    config.network = network;
    Ok(config)
}

/// Returns the classes of a configuration's network.
pub(super) fn classes_of(config: &Config) -> Vec<Class> {
    let classes = Classes::new(&config.dataset);
    let class = |index: usize| Class {
        name: classes.name(index),
        color: u8::try_from(index).ok().and_then(|id| classes.color(id)).unwrap_or_default(),
    };
    (0..config.network.classes).map(class).collect()
}
