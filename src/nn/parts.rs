//! The parts of a network that a configuration chooses: backbone and head.

use crate::config::NetworkConfig;
use crate::ops;
use crate::params::Spec;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::daformer::{DaformerHead, FusionKind};
use super::deeplab::DeepLabHead;
use super::layers::Pass;
use super::mit::Mit;
use super::resnet::ResNet;

/// What turns an image into features of four levels.
pub enum Backbone {
    /// Strides 4, 8, 16, 32.
    Mit(Mit),
    /// Strides 4, 8, 8, 8.
    ResNet(ResNet),
}

impl Backbone {
    pub fn new(spec: &mut Spec, prefix: &str, config: &NetworkConfig) -> Result<Backbone> {
        Ok(if config.backbone.starts_with("resnet") {
            Backbone::ResNet(ResNet::new(spec, prefix, config)?)
        } else {
            Backbone::Mit(Mit::new(spec, prefix, config)?)
        })
    }

    /// Channels of the four levels.
    pub fn widths(&self) -> [usize; 4] {
        match self {
            Backbone::Mit(mit) => mit.widths,
            Backbone::ResNet(_) => ResNet::WIDTHS,
        }
    }

    /// Whether a sample's features are its own, whatever else is in the batch: a ResNet's batch norms
    /// see it all.
    pub fn joins(&self) -> bool {
        matches!(self, Backbone::Mit(_))
    }

    /// image: B,H,W,3.
    pub fn forward(&self, pass: &Pass, image: &Tensor) -> Result<[Tensor; 4]> {
        let image = ops::to_operand(pass.tape.device(), image)?;
        match self {
            Backbone::Mit(mit) => mit.forward(pass, &image),
            Backbone::ResNet(resnet) => resnet.forward(pass, &image),
        }
    }

    /// Features of several inputs, each in its pass, all of one tape. Inputs of one size go as one
    /// batch, in the first's pass, where the backbone [`joins`](Self::joins): wider work for the
    /// device, and parameters are read once.
    pub fn forward_each(&self, inputs: Vec<(Pass, Tensor)>) -> Result<Vec<[Tensor; 4]>> {
        let alike = |(_, image): &(Pass, Tensor)| image.shape()[1..] == inputs[0].1.shape()[1..];
        if inputs.len() < 2 || !self.joins() || !inputs.iter().all(alike) {
            return inputs.into_iter().map(|(pass, image)| self.forward(&pass, &image)).collect();
        }
        let (passes, images): (Vec<Pass>, Vec<Tensor>) = inputs.into_iter().unzip();
        let samples: Vec<usize> = images.iter().map(|image| image.dim(0)).collect();
        let (pass, device) = (&passes[0], passes[0].tape.device());
        let together = ops::stack(device, &images)?;
        drop(images);
        let levels = self.forward(pass, &together)?;
        drop(together);
        let mut features = vec![Vec::with_capacity(4); samples.len()];
        for level in levels {
            let parts = ops::split(pass.tape, &level, &samples)?;
            features.iter_mut().zip(parts).for_each(|(of_one, part)| of_one.push(part));
        }
        let four = |_| Error::shape("backbone", "four levels are needed");
        features.into_iter().map(|levels| levels.try_into().map_err(four)).collect()
    }
}

/// What a head's logits are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Classes,
    /// HRDA's weights of detail against context: the plainer form of a head that has one.
    Attention,
}

/// What turns features into logits.
pub enum Head {
    /// DAFormer's and SegFormer's.
    Daformer(DaformerHead),
    DeepLab(DeepLabHead),
}

impl Head {
    /// `widths`: channels of the backbone's levels. `site`: the random stream of the dropout.
    pub fn new(
        spec: &mut Spec,
        prefix: &str,
        widths: [usize; 4],
        config: &NetworkConfig,
        role: Role,
        site: usize,
    ) -> Result<Head> {
        let fusion = match role {
            Role::Classes => FusionKind::Aspp,
            Role::Attention => FusionKind::Conv1x1,
        };
        match config.head.as_str() {
            "daformer" => {
                Ok(Head::Daformer(DaformerHead::new(spec, prefix, widths, config, fusion, site)))
            }
            "segformer" if role == Role::Classes => {
                Ok(Head::Daformer(DaformerHead::segformer(spec, prefix, widths, config, site)))
            }
            "dlv2" => {
                let (classes, dilations) = (config.classes, &config.dilations);
                Ok(Head::DeepLab(DeepLabHead::new(spec, prefix, widths[3], classes, dilations)))
            }
            other => {
                let problem = format!("network.head: there is no `{other}` for {role:?}");
                Err(Error::config(problem))
            }
        }
    }

    /// Pixels of the image per cell of the logits, along a side: DeepLab's are of the size of the
    /// last level of a ResNet.
    pub fn stride(&self) -> usize {
        match self {
            Head::Daformer(_) => 4,
            Head::DeepLab(_) => 8,
        }
    }

    pub fn forward(&self, pass: &Pass, features: &[Tensor; 4]) -> Result<Tensor> {
        match self {
            Head::Daformer(head) => head.forward(pass, features),
            Head::DeepLab(head) => head.forward(pass, features),
        }
    }
}
