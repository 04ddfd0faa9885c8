//! Raw label ids of Cityscapes, which GTA labels use too.

use crate::data::classes::CITYSCAPES;

/// Label id of anything that belongs to no class.
pub const NONE: u8 = 0;
/// Label id of the ego vehicle.
pub const EGO: u8 = 1;
pub const ROAD: u8 = label_id("road");
pub const SIDEWALK: u8 = label_id("sidewalk");
pub const BUILDING: u8 = label_id("building");
pub const WALL: u8 = label_id("wall");
pub const FENCE: u8 = label_id("fence");
pub const POLE: u8 = label_id("pole");
pub const LIGHT: u8 = label_id("traffic light");
pub const SIGN: u8 = label_id("traffic sign");
pub const VEGETATION: u8 = label_id("vegetation");
pub const TERRAIN: u8 = label_id("terrain");
pub const SKY: u8 = label_id("sky");
pub const PERSON: u8 = label_id("person");
pub const RIDER: u8 = label_id("rider");
pub const CAR: u8 = label_id("car");
pub const TRUCK: u8 = label_id("truck");
pub const BUS: u8 = label_id("bus");
pub const TRAIN: u8 = label_id("train");
pub const MOTORCYCLE: u8 = label_id("motorcycle");
pub const BICYCLE: u8 = label_id("bicycle");

/// Returns the label id of a class. An unknown name fails the build.
const fn label_id(name: &str) -> u8 {
    let mut train_id = 0;
    while !same(CITYSCAPES[train_id].name, name) {
        train_id += 1;
    }
    CITYSCAPES[train_id].label_id
}

/// Compares strings at compile time, where `==` is not available.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}
