//! The parts of a network that the configuration selects: backbone and head.

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

/// A backbone, which maps an image to features at four levels.
pub enum Backbone {
    /// A Mix Transformer, at strides 4, 8, 16 and 32.
    Mit(Mit),
    /// A ResNet, at strides 4, 8, 8 and 8.
    ResNet(ResNet),
}

impl Backbone {
    /// Adds the parameters of the configured backbone to `spec`.
    pub fn new(spec: &mut Spec, prefix: &str, config: &NetworkConfig) -> Result<Backbone> {
        Ok(if config.backbone.starts_with("resnet") {
            Backbone::ResNet(ResNet::new(spec, prefix, config)?)
        } else {
            Backbone::Mit(Mit::new(spec, prefix, config)?)
        })
    }

    /// Returns the channels of the four levels.
    pub fn widths(&self) -> [usize; 4] {
        match self {
            Backbone::Mit(mit) => mit.widths,
            Backbone::ResNet(_) => ResNet::WIDTHS,
        }
    }

    /// Returns whether the features of a sample are independent of the rest of the batch, so that
    /// inputs may be joined into one batch. A ResNet's are not: its batch norms see the whole
    /// batch.
    pub fn joins(&self) -> bool {
        matches!(self, Backbone::Mit(_))
    }

    /// Returns the features of `image`, B,H,W,3.
    pub fn forward(&self, pass: &Pass, image: &Tensor) -> Result<[Tensor; 4]> {
        let image = ops::to_operand(pass.tape.device(), image)?;
        match self {
            Backbone::Mit(mit) => mit.forward(pass, &image),
            Backbone::ResNet(resnet) => resnet.forward(pass, &image),
        }
    }

    /// Returns the features of several inputs, each with its own pass, all on one tape. If all
    /// inputs have the same size and the backbone [`joins`](Self::joins) them, they run as one
    /// batch with the pass of the first: the device gets larger kernels, and parameters are read
    /// once.
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
        let four = |_| Error::shape("backbone", "the head needs four feature levels");
        features.into_iter().map(|levels| levels.try_into().map_err(four)).collect()
    }
}

/// The purpose of a head's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Class logits.
    Classes,
    /// HRDA's attention, which weights detail against context. It uses the simpler variant of a
    /// head that has one.
    Attention,
}

/// A decode head, which maps features to logits.
pub enum Head {
    /// The head of DAFormer or SegFormer.
    Daformer(DaformerHead),
    /// The head of DeepLabV2.
    DeepLab(DeepLabHead),
}

impl Head {
    /// Adds the parameters of the configured head to `spec`. `widths` are the channels of the
    /// backbone's levels; `site` is the random stream of the dropout.
    ///
    /// # Errors
    /// Returns a configuration error if there is no such head for the role.
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
                let problem = format!("network.head: unknown {role:?} head `{other}`");
                Err(Error::config(problem))
            }
        }
    }

    /// Returns the image pixels per logit position along a side. DeepLab's logits have the size of
    /// the last level of a ResNet.
    pub fn stride(&self) -> usize {
        match self {
            Head::Daformer(_) => 4,
            Head::DeepLab(_) => 8,
        }
    }

    /// Returns the logits of the features of a backbone.
    pub fn forward(&self, pass: &Pass, features: &[Tensor; 4]) -> Result<Tensor> {
        match self {
            Head::Daformer(head) => head.forward(pass, features),
            Head::DeepLab(head) => head.forward(pass, features),
        }
    }
}
