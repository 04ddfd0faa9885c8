//! The classes of a run, and the 19 classes of Cityscapes: names, colors, and ids in label files.

use crate::config::{DatasetConfig, LabelValue};

/// Train id of unlabeled pixels.
pub const IGNORE: u8 = 255;

/// One class of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Name of the class.
    pub name: &'static str,
    /// RGB color in the Cityscapes palette.
    pub color: [u8; 3],
    /// Id of the class in `*_labelIds.png` files and in files for the evaluation server.
    pub label_id: u8,
}

const fn class(name: &'static str, color: [u8; 3], label_id: u8) -> Class {
    Class { name, color, label_id }
}

/// The 19 classes of Cityscapes, indexed by train id. Source: `labels.py` of the Cityscapes
/// scripts.
pub const CITYSCAPES: [Class; 19] = [
    class("road", [128, 64, 128], 7),
    class("sidewalk", [244, 35, 232], 8),
    class("building", [70, 70, 70], 11),
    class("wall", [102, 102, 156], 12),
    class("fence", [190, 153, 153], 13),
    class("pole", [153, 153, 153], 17),
    class("traffic light", [250, 170, 30], 19),
    class("traffic sign", [220, 220, 0], 20),
    class("vegetation", [107, 142, 35], 21),
    class("terrain", [152, 251, 152], 22),
    class("sky", [70, 130, 180], 23),
    class("person", [220, 20, 60], 24),
    class("rider", [255, 0, 0], 25),
    class("car", [0, 0, 142], 26),
    class("truck", [0, 0, 70], 27),
    class("bus", [0, 60, 100], 28),
    class("train", [0, 80, 100], 31),
    class("motorcycle", [0, 0, 230], 32),
    class("bicycle", [119, 11, 32], 33),
];

/// Label id in SYNTHIA's files for each train id. Terrain, truck and train occur in none of the
/// files. Source: README of SYNTHIA-RAND-CITYSCAPES.
pub const SYNTHIA_IDS: [u8; 19] =
    [3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11];

/// Train ids of the 16 classes that SYNTHIA shares with Cityscapes: all but terrain, truck and
/// train.
pub const SYNTHIA_16: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18];

/// Train ids of the 13-class SYNTHIA subset: [`SYNTHIA_16`] without wall, fence and pole.
pub const SYNTHIA_13: [usize; 13] = [0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18];

/// The classes of a run: name, color, and id in the label files that the run writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    list: Vec<(String, [u8; 3], u8)>,
    cityscapes: bool,
}

impl Classes {
    /// Returns the classes that `[dataset]` configures, or those of Cityscapes if it names none.
    pub fn new(config: &DatasetConfig) -> Classes {
        let mut classes = match config.names.is_empty() {
            true => Classes::cityscapes(),
            false => {
                let list = (0..).zip(&config.names);
                let list = list.map(|(class, name)| (name.clone(), made_up(class), class));
                Classes { list: list.collect(), cityscapes: false }
            }
        };
        for (class, value) in classes.list.iter_mut().zip(&config.colors) {
            if let LabelValue::Color(rgb) = value {
                class.1 = *rgb;
            }
        }
        classes
    }

    /// Returns the 19 classes of Cityscapes.
    pub fn cityscapes() -> Classes {
        let list = CITYSCAPES.iter().map(|c| (c.name.to_owned(), c.color, c.label_id)).collect();
        Classes { list, cityscapes: true }
    }

    /// Returns whether these are the 19 classes of Cityscapes.
    pub fn are_cityscapes(&self) -> bool {
        self.cityscapes
    }

    /// Returns the number of classes.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the name of a class for messages and tables; an unknown id is named by its number.
    pub fn name(&self, class: usize) -> String {
        self.list.get(class).map_or_else(|| format!("class {class}"), |class| class.0.clone())
    }

    /// Returns the color of a class, or None for [`IGNORE`] and any unknown id.
    pub fn color(&self, class: u8) -> Option<[u8; 3]> {
        self.list.get(class as usize).map(|class| class.1)
    }

    /// Returns the id of a class in label files that the run writes: the Cityscapes label id, or
    /// the class number for other classes. Any unknown id becomes 0 (`unlabeled`) for Cityscapes
    /// and [`IGNORE`] otherwise.
    pub fn label_id(&self, class: u8) -> u8 {
        let unknown = if self.cityscapes { 0 } else { IGNORE };
        self.list.get(class as usize).map_or(unknown, |class| class.2)
    }
}

/// Generates a color that differs from those of adjacent classes: the PASCAL VOC color map without
/// its first entry, black.
fn made_up(class: u8) -> [u8; 3] {
    let index = u32::from(class) + 1;
    // Each channel takes every third bit of the index, with the lowest bit moved to the highest
    // position.
    std::array::from_fn(|channel| {
        (0..8).fold(0, |byte, bit| byte | ((index >> (3 * bit + channel) & 1) << (7 - bit)) as u8)
    })
}
