//! Networks as ONNX graphs that compute the logits of inference.

mod heads;
mod hrda;
mod layers;
mod mit;
mod resnet;

use crate::Result;
use crate::device::Device;
use crate::onnx::{Graph, Model, Value};
use crate::ops::{MEAN, STD};
use crate::params::Weights;

use super::parts::{Backbone, Head};
use super::segmentor::Segmentor;

/// The name of the input.
pub const INPUT: &str = "image";
/// The name of the output.
pub const OUTPUT: &str = "logits";
const ABOUT_INPUT: &str = "RGB, each channel from 0 to 255. The graph normalizes it.";
const ABOUT_OUTPUT: &str = "The logits of every pixel, before any softmax.";

/// The size of a graph's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSize {
    /// Batch, height and width.
    Fixed([usize; 3]),
    /// The same graph takes images of any number and size that the network can process.
    Dynamic,
}

/// A graph in the making, with the weights that it takes in.
struct Export<'a> {
    graph: Graph,
    device: &'a Device,
    weights: &'a Weights,
}

/// Returns the network as a file: `image`, B,3,H,W, to `logits`, B,classes,H,W, which are those of
/// one window of inference. `metadata` are named texts to put into the file.
///
/// # Errors
/// An error from the device that the weights are read from.
pub fn model(
    network: &Segmentor,
    device: &Device,
    weights: &Weights,
    size: InputSize,
    metadata: Vec<(String, String)>,
) -> Result<Model> {
    let mut export = Export { graph: Graph::default(), device, weights };
    let [batch, height, width] = match size {
        InputSize::Fixed(sides) => sides.map(Some),
        InputSize::Dynamic => [None; 3],
    };
    let axes = |channels| {
        [("batch", batch), ("channels", Some(channels)), ("height", height), ("width", width)]
    };
    let bytes = export.graph.input(INPUT, &axes(3), ABOUT_INPUT);
    let image = export.normalize(&bytes);
    let coarse = export.logits(network, &image)?;
    export.graph.within("");
    let g = &mut export.graph;
    let sides = [g.dim(&bytes, 2), g.dim(&bytes, 3)];
    let logits = g.resize(&coarse, sides);
    g.output(&logits, OUTPUT, &axes(network.classes()), ABOUT_OUTPUT);
    let about = "Semantic segmentation: the class of a pixel is the one with the largest logit.";
    Ok(export.graph.finish("segmentor", about, metadata))
}

impl Export<'_> {
    fn normalize(&mut self, image: &Value) -> Value {
        let g = &mut self.graph;
        g.within("normalize");
        let mean = g.constant("normalize.mean", &[3, 1, 1], &MEAN);
        let inverse = STD.map(|std| (1.0 / f64::from(std)) as f32);
        let inverse = g.constant("normalize.inverse_std", &[3, 1, 1], &inverse);
        let centered = g.binary("Sub", image, &mean);
        g.binary("Mul", &centered, &inverse)
    }

    /// Returns the logits of a normalized image, one position per stride.
    fn logits(&mut self, network: &Segmentor, image: &Value) -> Result<Value> {
        match &network.hrda {
            Some(hrda) => self.hrda(network, hrda, image),
            None => {
                let features = self.backbone(&network.backbone, image)?;
                self.head(&network.head, &features)
            }
        }
    }

    fn backbone(&mut self, backbone: &Backbone, image: &Value) -> Result<Vec<Value>> {
        match backbone {
            Backbone::Mit(mit) => self.mit(mit, image),
            Backbone::ResNet(resnet) => self.resnet(resnet, image),
        }
    }

    fn head(&mut self, head: &Head, features: &[Value]) -> Result<Value> {
        match head {
            Head::Daformer(head) => self.daformer(head, features),
            Head::DeepLab(head) => self.deeplab(head, features),
        }
    }
}
