//! Dataset layouts: where images and labels are. Each dataset has its own file; [`find`] looks up a
//! layout by name.

mod adverse;
mod cityscapes;
mod files;
mod flat;
mod known;
mod layout;
pub(super) mod paths;

pub use files::Files;
pub use known::{Domain, find};
pub use layout::{Layout, Matched, Pair, RawLabel, Split};
