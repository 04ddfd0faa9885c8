//! Networks: what layers there are, in which order they run, and what the reference's state dict
//! calls their parameters.

mod daformer;
mod layers;
mod mit;
mod segmentor;

pub use daformer::{DaformerHead, FusionKind};
pub use layers::{Dropping, Pass, Statistics};
pub use mit::Mit;
pub use segmentor::{Output, Segmentor, Supervision};
