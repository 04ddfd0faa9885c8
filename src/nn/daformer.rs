//! The decode heads of DAFormer (Hoyer et al. 2022, section 3.2) and SegFormer (Xie et al. 2021,
//! section 3.2). HRDA's attention head is DAFormer's with a 1×1 convolution for fusion, which has
//! the same structure as SegFormer's.

use crate::Result;
use crate::config::NetworkConfig;
use crate::ops;
use crate::params::{Init, Spec};
use crate::tensor::Tensor;

use super::layers::{
    BatchNorm, Convolution, Depthwise, Dropout, Linear, Pass, kaiming_normal, torch_default,
};

/// How the four embedded levels are fused into one feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FusionKind {
    /// Depthwise-separable ASPP with dilations 1, 6, 12 and 18.
    Aspp,
    /// A 1×1 convolution.
    Conv1x1,
}

/// Embeds each of four levels with a linear layer, resizes them to the finest level, fuses them,
/// and classifies each position.
pub struct DaformerHead {
    pub(super) embed: Vec<Linear>,
    pub(super) fuse: Fuse,
    dropout: Dropout,
    pub(super) classifier: Linear,
}

pub(super) enum Fuse {
    Aspp { branches: Vec<Branch>, bottleneck: Convolution, norm: BatchNorm },
    Conv1x1 { conv: Linear, norm: BatchNorm },
}

pub(super) enum Branch {
    Conv1x1 {
        conv: Linear,
        norm: BatchNorm,
    },
    Separable {
        depthwise: Depthwise,
        depthwise_norm: BatchNorm,
        pointwise: Linear,
        pointwise_norm: BatchNorm,
    },
}

const DILATIONS: [usize; 4] = [1, 6, 12, 18];

/// Initial weights and biases of the reference's `conv_seg`.
const CLASSIFIER: (Init, Option<Init>) = (Init::Normal(0.01), Some(Init::Constant(0.0)));

impl DaformerHead {
    /// Adds the parameters of the head to `spec`. `widths` are the channels of the four levels;
    /// `site` is the random stream of the dropout.
    pub fn new(
        spec: &mut Spec,
        prefix: &str,
        widths: [usize; 4],
        config: &NetworkConfig,
        kind: FusionKind,
        site: usize,
    ) -> DaformerHead {
        let channels = config.channels;
        let name = format!("{prefix}.conv_seg");
        let shape = [channels, config.classes];
        let classifier = Linear::conv1x1(spec, &name, shape, CLASSIFIER.0, CLASSIFIER.1);
        let embed = embed(spec, &format!("{prefix}.embed_layers"), widths, channels);
        let name = format!("{prefix}.fuse_layer");
        let fuse = match kind {
            FusionKind::Aspp => Fuse::aspp(spec, &name, channels),
            FusionKind::Conv1x1 => Fuse::conv1x1(spec, &name, channels),
        };
        DaformerHead { embed, fuse, dropout: Dropout { rate: config.dropout, site }, classifier }
    }

    /// Adds the parameters of SegFormer's all-MLP head to `spec`; the arguments are those of
    /// [`new`](Self::new).
    pub fn segformer(
        spec: &mut Spec,
        prefix: &str,
        widths: [usize; 4],
        config: &NetworkConfig,
        site: usize,
    ) -> DaformerHead {
        /// Input channels of the unused classifier in the reference's state dict.
        const UNUSED: usize = 128;
        let (channels, classes) = (config.channels, config.classes);
        let name = format!("{prefix}.conv_seg");
        Linear::conv1x1(spec, &name, [UNUSED, classes], CLASSIFIER.0, CLASSIFIER.1);
        let embed = embed(spec, &format!("{prefix}.linear_c"), widths, channels);
        let fuse = Fuse::conv1x1(spec, &format!("{prefix}.linear_fuse"), channels);
        let name = format!("{prefix}.linear_pred");
        let init = torch_default(channels);
        let classifier = Linear::conv1x1(spec, &name, [channels, classes], init, Some(init));
        DaformerHead { embed, fuse, dropout: Dropout { rate: config.dropout, site }, classifier }
    }

    /// Returns logits B,H/4,W/4,classes, which have the size of the first level. `features` are the
    /// four levels of a backbone.
    pub fn forward(&self, pass: &Pass, features: &[Tensor; 4]) -> Result<Tensor> {
        let [_, height, width, _] = features[0].bhwc("daformer")?;
        let fused = self.fuse.forward(pass, &self.embed, features, (height, width))?;
        let fused = self.dropout.forward(pass, &fused)?;
        self.classifier.forward_wide(pass, &fused)
    }
}

/// Adds the layers that embed the four levels.
fn embed(spec: &mut Spec, name: &str, widths: [usize; 4], channels: usize) -> Vec<Linear> {
    let level = |(i, inputs): (usize, usize)| {
        let init = torch_default(inputs);
        Linear::new(spec, &format!("{name}.{i}.proj"), [inputs, channels], init, init)
    };
    widths.into_iter().enumerate().map(level).collect()
}

/// Adds a 1×1 convolution named `conv` and its batch norm `bn`.
pub(super) fn conv1x1(
    spec: &mut Spec,
    name: &str,
    inputs: usize,
    outputs: usize,
) -> (Linear, BatchNorm) {
    let init = kaiming_normal(outputs, 1);
    let conv = Linear::conv1x1(spec, &format!("{name}.conv"), [inputs, outputs], init, None);
    (conv, BatchNorm::new(spec, &format!("{name}.bn"), outputs, 1.0))
}

impl Fuse {
    fn conv1x1(spec: &mut Spec, name: &str, channels: usize) -> Fuse {
        let (conv, norm) = conv1x1(spec, name, 4 * channels, channels);
        Fuse::Conv1x1 { conv, norm }
    }

    fn aspp(spec: &mut Spec, name: &str, channels: usize) -> Fuse {
        let joined = 4 * channels;
        let branches = (0..4)
            .map(|i| {
                let name = format!("{name}.aspp_modules.{i}");
                if DILATIONS[i] == 1 {
                    let (conv, norm) = conv1x1(spec, &name, joined, channels);
                    return Branch::Conv1x1 { conv, norm };
                }
                let (dw, pw) = (format!("{name}.depthwise_conv"), format!("{name}.pointwise_conv"));
                let conv = format!("{dw}.conv");
                // mmcv takes the fan-out from the filters' shape, not divided by the groups.
                let init = kaiming_normal(joined, 3);
                let depthwise = Depthwise::new(spec, &conv, joined, DILATIONS[i], false, init);
                let depthwise_norm = BatchNorm::new(spec, &format!("{dw}.bn"), joined, 1.0);
                let (pointwise, pointwise_norm) = conv1x1(spec, &pw, joined, channels);
                Branch::Separable { depthwise, depthwise_norm, pointwise, pointwise_norm }
            })
            .collect();
        let name = format!("{name}.bottleneck");
        let geometry = ops::Conv { stride: 1, padding: 1, dilation: 1 };
        let (conv, init) = (format!("{name}.conv"), kaiming_normal(channels, 3));
        let shape = [joined, channels];
        let bottleneck = Convolution::new(spec, &conv, shape, 3, geometry, false, init);
        let norm = BatchNorm::new(spec, &format!("{name}.bn"), channels, 1.0);
        Fuse::Aspp { branches, bottleneck, norm }
    }

    fn forward(
        &self,
        pass: &Pass,
        embed: &[Linear],
        features: &[Tensor; 4],
        size: (usize, usize),
    ) -> Result<Tensor> {
        match self {
            Fuse::Aspp { branches, bottleneck, norm } => {
                let embedded = (embed.iter().zip(features))
                    .map(|(embed, feature)| embed.forward(pass, feature))
                    .collect::<Result<Vec<_>>>()?;
                let joined = ops::resize_concat(pass.tape, &embedded, size)?;
                drop(embedded);
                let outputs = (branches.iter())
                    .map(|branch| branch.forward(pass, &joined))
                    .collect::<Result<Vec<_>>>()?;
                drop(joined);
                let together = ops::concat(pass.tape, &outputs)?;
                drop(outputs);
                let mixed = bottleneck.forward(pass, &together)?;
                drop(together);
                norm.forward_relu(pass, &mixed)
            }
            Fuse::Conv1x1 { conv, norm } => {
                let fused = conv.forward_resized(pass, embed, features, size)?;
                norm.forward_relu(pass, &fused)
            }
        }
    }
}

impl Branch {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        match self {
            Branch::Conv1x1 { conv, norm } => norm.forward_relu(pass, &conv.forward(pass, x)?),
            Branch::Separable { depthwise, depthwise_norm, pointwise, pointwise_norm } => {
                let x = depthwise_norm.forward_relu(pass, &depthwise.forward(pass, x)?)?;
                pointwise_norm.forward_relu(pass, &pointwise.forward(pass, &x)?)
            }
        }
    }
}
