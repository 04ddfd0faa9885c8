//! Networks: what layers there are, in which order they run, and what the reference's state dict
//! calls their parameters.

mod daformer;
mod deeplab;
mod layers;
mod mit;
mod parts;
mod resnet;
mod segmentor;

pub use layers::{Dropping, Pass, Statistics};
pub use parts::{Backbone, Head, Role};
pub use segmentor::{Features, HrdaParts, Output, Parts, Segmentor, Supervision};
