//! Where a data set's images and labels are. One file a data set; [`find`] knows them by name.

mod adverse;
mod cityscapes;
mod files;
mod flat;
mod known;
mod layout;
mod paths;

pub use files::Files;
pub use known::{Domain, find};
pub use layout::{Layout, Pair, RawLabel, Split};
