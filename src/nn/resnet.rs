//! ResNet v1c (He et al. 2016; He et al. 2019): the stem has three 3×3 convolutions, and a
//! bottleneck's stride is on its 3×3 convolution. As in DeepLab, dilation replaces the strides of
//! the last two stages.

use crate::config::NetworkConfig;
use crate::ops::{self, Conv};
use crate::params::Spec;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::layers::{BatchNorm, Convolution, Pass, kaiming_normal};

/// Channels of the stem's three convolutions.
const STEM: [usize; 3] = [32, 32, 64];
/// Channels inside the bottlenecks of each stage.
const INNER: [usize; 4] = [64, 128, 256, 512];
/// A bottleneck outputs this many times its inner channels.
const EXPANSION: usize = 4;
const STRIDES: [usize; 4] = [1, 2, 1, 1];
/// The dilation of each stage; its first block has half of it (the reference's
/// `contract_dilation`).
const DILATIONS: [usize; 4] = [1, 1, 2, 4];

/// A backbone of a stem and four stages of bottlenecks, at strides 4, 8, 8 and 8.
pub struct ResNet {
    pub(super) stem: Vec<ConvNorm>,
    pub(super) stages: Vec<Vec<Bottleneck>>,
    /// Enables activation checkpointing: the tape keeps only the input of each bottleneck.
    recompute: bool,
}

/// A convolution without bias, followed by a batch norm.
#[derive(Clone)]
pub(super) struct ConvNorm {
    pub(super) conv: Convolution,
    pub(super) norm: BatchNorm,
}

#[derive(Clone)]
pub(super) struct Bottleneck {
    /// The 1×1, 3×3 and 1×1 convolutions of the residual branch.
    pub(super) branch: [ConvNorm; 3],
    /// The projection of the input, if the branch changes the shape.
    pub(super) shortcut: Option<ConvNorm>,
}

impl ResNet {
    /// The output channels of the four stages.
    pub const WIDTHS: [usize; 4] = [256, 512, 1024, 2048];

    /// Adds the parameters of the backbone named in `network.backbone` to `spec`.
    ///
    /// # Errors
    /// Returns a configuration error if the name is neither `resnet50_v1c` nor `resnet101_v1c`.
    pub fn new(spec: &mut Spec, prefix: &str, config: &NetworkConfig) -> Result<ResNet> {
        let depths = match config.backbone.as_str() {
            "resnet50_v1c" => [3, 4, 6, 3],
            "resnet101_v1c" => [3, 4, 23, 3],
            other => {
                let known = "resnet50_v1c or resnet101_v1c";
                return Err(Error::config(format!("network.backbone: `{other}` is not {known}")));
            }
        };
        let mut inputs = 3;
        let stem = (STEM.iter().enumerate())
            .map(|(i, &outputs)| {
                // The reference numbers convolution, norm and ReLU consecutively, three times.
                let names = [3 * i, 3 * i + 1].map(|n| format!("{prefix}.stem.{n}"));
                let geometry = Conv::strided(if i == 0 { 2 } else { 1 }, 1);
                let conv = ConvNorm::new(spec, names, [inputs, outputs], 3, geometry, 1.0);
                inputs = outputs;
                conv
            })
            .collect();
        let mut stages = Vec::with_capacity(4);
        for (i, depth) in depths.into_iter().enumerate() {
            let blocks = (0..depth)
                .map(|j| {
                    let (stride, dilation) = match j {
                        0 => (STRIDES[i], (DILATIONS[i] / 2).max(1)),
                        _ => (1, DILATIONS[i]),
                    };
                    let name = format!("{prefix}.layer{}.{j}", i + 1);
                    let block = Bottleneck::new(spec, &name, inputs, INNER[i], stride, dilation);
                    inputs = INNER[i] * EXPANSION;
                    block
                })
                .collect();
            stages.push(blocks);
        }
        Ok(ResNet { stem, stages, recompute: config.activation_checkpointing })
    }

    /// Returns features B,⌈H/s⌉,⌈W/s⌉,C for strides s of 4, 8, 8 and 8. `image` is B,H,W,3.
    pub fn forward(&self, pass: &Pass, image: &Tensor) -> Result<[Tensor; 4]> {
        let mut x = image.clone();
        for layer in &self.stem {
            x = layer.forward_relu(pass, &x)?;
        }
        x = ops::max_pool(pass.tape, &x)?;
        let mut features = Vec::with_capacity(4);
        for stage in &self.stages {
            for block in stage {
                x = match self.recompute {
                    true => block.checkpointed(pass, &x)?,
                    false => block.forward(pass, &x)?,
                };
            }
            features.push(x.clone());
        }
        features
            .try_into()
            .map_err(|_| Error::shape("resnet", "a ResNet backbone needs four stages"))
    }
}

impl ConvNorm {
    /// Adds a convolution and its norm to `spec`. `names` are their names; the norm's weights are
    /// initialized to `gain`.
    fn new(
        spec: &mut Spec,
        names: [String; 2],
        channels: [usize; 2],
        kernel: usize,
        geometry: Conv,
        gain: f32,
    ) -> ConvNorm {
        let (init, [conv, norm]) = (kaiming_normal(channels[1], kernel), names);
        ConvNorm {
            conv: Convolution::new(spec, &conv, channels, kernel, geometry, false, init),
            norm: BatchNorm::new(spec, &norm, channels[1], gain),
        }
    }

    fn plain(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        self.norm.plain(pass, &self.conv.forward(pass, x)?)
    }

    fn forward_relu(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        self.norm.forward_relu(pass, &self.conv.forward(pass, x)?)
    }
}

impl Bottleneck {
    fn new(
        spec: &mut Spec,
        name: &str,
        inputs: usize,
        inner: usize,
        stride: usize,
        dilation: usize,
    ) -> Bottleneck {
        let outputs = inner * EXPANSION;
        let mut layer = |conv: &str, norm: &str, channels, kernel, geometry, gain| {
            let names = [format!("{name}.{conv}"), format!("{name}.{norm}")];
            ConvNorm::new(spec, names, channels, kernel, geometry, gain)
        };
        let one = Conv::same(1, 1);
        let middle = Conv { stride, padding: dilation, dilation };
        // A block starts as the identity: the weights of the branch's last norm are initialized to
        // 0 (the reference's `zero_init_residual`).
        let branch = [
            layer("conv1", "bn1", [inputs, inner], 1, one, 1.0),
            layer("conv2", "bn2", [inner, inner], 3, middle, 1.0),
            layer("conv3", "bn3", [inner, outputs], 1, one, 0.0),
        ];
        let shortcut = (stride != 1 || inputs != outputs).then(|| {
            let strided = Conv::strided(stride, 0);
            layer("downsample.0", "downsample.1", [inputs, outputs], 1, strided, 1.0)
        });
        Bottleneck { branch, shortcut }
    }

    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let [first, second, third] = &self.branch;
        let inner = second.forward_relu(pass, &first.forward_relu(pass, x)?)?;
        let outer = third.plain(pass, &inner)?;
        drop(inner);
        let kept = match &self.shortcut {
            Some(shortcut) => shortcut.plain(pass, x)?,
            None => x.clone(),
        };
        ops::add(pass.tape, &outer, &kept, true)
    }

    /// Runs [`forward`](Self::forward) with activation checkpointing, which saves memory and runs
    /// it again in the backward pass.
    fn checkpointed(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let block = self.clone();
        let forward = move |pass: &Pass, [x]: [Tensor; 1]| Ok([block.forward(pass, &x)?]);
        pass.checkpointed([x], forward).map(|[y]| y)
    }
}
