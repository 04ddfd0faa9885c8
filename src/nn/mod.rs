//! Networks: the layers, the order in which they run, and the names of their parameters in the
//! reference's state dict.

mod daformer;
mod deeplab;
mod layers;
mod mit;
pub mod onnx;
mod parts;
mod projection;
mod resnet;
mod segmentor;

pub use layers::{BatchNormMode, DropoutRng, Pass};
pub use parts::{Backbone, Head, Role};
pub use projection::{Projected, ProjectionHead};
pub use segmentor::{Features, HrdaParts, Output, PROJECTION, Parts, Segmentor, Supervision};
