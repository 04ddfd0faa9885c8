//! The projection head of contrast losses (SePiCo, Xie et al. 2023), which only training uses.

use crate::Result;
use crate::ops;
use crate::params::Spec;
use crate::tensor::Tensor;

use super::daformer::conv1x1;
use super::layers::{BatchNorm, Linear, Pass};

/// The levels of a backbone that the head projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projected {
    /// All levels, resized to the size of the first and concatenated.
    All,
    /// The last level.
    Last,
}

/// Two 1×1 convolutions, each with batch norm and ReLU, whose output is scaled to unit length at
/// every position.
pub struct ProjectionHead {
    layers: [(Linear, BatchNorm); 2],
    of: Projected,
}

impl ProjectionHead {
    /// Adds the parameters of the head to `spec`. `widths` are the channels of the backbone's four
    /// levels, `channels` those of the output. As released, the layer between has the mean of the
    /// projected levels' channels.
    pub fn new(
        spec: &mut Spec,
        prefix: &str,
        widths: [usize; 4],
        of: Projected,
        channels: usize,
    ) -> ProjectionHead {
        let (inputs, hidden) = match of {
            Projected::All => (widths.iter().sum(), widths.iter().sum::<usize>() / widths.len()),
            Projected::Last => (widths[3], widths[3]),
        };
        let layers = [(0, inputs, hidden), (1, hidden, channels)];
        let layers = layers.map(|(i, inputs, outputs)| {
            conv1x1(spec, &format!("{prefix}.convs.{i}"), inputs, outputs)
        });
        ProjectionHead { layers, of }
    }

    /// Returns vectors of unit length, B,h,w,C in the compute type.
    pub fn forward(&self, pass: &Pass, features: &[Tensor; 4]) -> Result<Tensor> {
        let mut x = match self.of {
            Projected::All => {
                let [_, height, width, _] = features[0].bhwc("projection")?;
                ops::resize_concat(pass.tape, features, (height, width))?
            }
            Projected::Last => features[3].clone(),
        };
        for (conv, norm) in &self.layers {
            x = norm.forward_relu(pass, &conv.forward(pass, &x)?)?;
        }
        ops::l2_normalize(pass.tape, &x)
    }
}
