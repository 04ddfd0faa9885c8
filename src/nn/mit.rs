//! The Mix Transformer, the encoder of SegFormer (Xie et al. 2021, section 3.1).

use std::rc::Rc;

use crate::config::NetworkConfig;
use crate::ops::{self, Conv};
use crate::params::{Init, Spec};
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::layers::{Convolution, Depthwise, LayerNorm, Linear, Pass, kaiming_normal};

/// Attention heads of each stage.
const HEADS: [usize; 4] = [1, 2, 5, 8];
/// The stride of the convolution that reduces keys and values in each stage.
const REDUCTION: [usize; 4] = [8, 4, 2, 1];
const MLP_RATIO: usize = 4;
/// The smallest side of an image: one reduced key of the first stage covers stride 4 times
/// reduction 8.
const SMALLEST: usize = 32;
/// Eps of the norms in blocks and at stage ends.
const BLOCK_EPS: f64 = 1e-6;
/// Eps of the norms of patch embeddings and of the key reduction.
const EMBED_EPS: f64 = 1e-5;

/// A backbone of four stages of transformer blocks, at strides 4, 8, 16 and 32.
pub struct Mit {
    pub(super) stages: Vec<Stage>,
    /// The channels of the four stages.
    pub widths: [usize; 4],
}

pub(super) struct Stage {
    pub(super) embed: Convolution,
    pub(super) embed_norm: LayerNorm,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: LayerNorm,
    /// Enables activation checkpointing: the tape keeps only the inputs of each block.
    recompute: bool,
}

#[derive(Clone)]
pub(super) struct Block {
    pub(super) norm1: LayerNorm,
    pub(super) attention: Attention,
    pub(super) norm2: LayerNorm,
    pub(super) fc1: Linear,
    pub(super) depthwise: Depthwise,
    pub(super) fc2: Linear,
    /// The drop-path probability of both residual branches.
    drop_path: f32,
    /// The first of the block's two random streams.
    site: usize,
}

#[derive(Clone)]
pub(super) struct Attention {
    pub(super) q: Linear,
    pub(super) kv: Linear,
    pub(super) proj: Linear,
    pub(super) reduction: Option<(Convolution, LayerNorm)>,
    pub(super) heads: usize,
    pub(super) name: Rc<str>,
}

impl Mit {
    /// Adds the parameters of the backbone named in `network.backbone` to `spec`.
    ///
    /// # Errors
    /// Returns a configuration error if the name is unknown.
    pub fn new(spec: &mut Spec, prefix: &str, config: &NetworkConfig) -> Result<Mit> {
        let NetworkConfig { drop_path, activation_checkpointing: recompute, .. } = *config;
        let (widths, depths) = match config.backbone.as_str() {
            "mit_b0" => ([32, 64, 160, 256], [2, 2, 2, 2]),
            "mit_b1" => ([64, 128, 320, 512], [2, 2, 2, 2]),
            "mit_b2" => ([64, 128, 320, 512], [3, 4, 6, 3]),
            "mit_b3" => ([64, 128, 320, 512], [3, 4, 18, 3]),
            "mit_b4" => ([64, 128, 320, 512], [3, 8, 27, 3]),
            "mit_b5" => ([64, 128, 320, 512], [3, 6, 40, 3]),
            other => {
                let known = "mit_b0 … mit_b5";
                return Err(Error::config(format!("network.backbone: `{other}` is not {known}")));
            }
        };
        let total: usize = depths.iter().sum();
        let embeds: Vec<_> = (0..4)
            .map(|i| {
                let inputs = if i == 0 { 3 } else { widths[i - 1] };
                let (kernel, stride, padding) = if i == 0 { (7, 4, 3) } else { (3, 2, 1) };
                let geometry = Conv { stride, padding, dilation: 1 };
                let name = format!("{prefix}.patch_embed{}", i + 1);
                let channels = [inputs, widths[i]];
                let proj = format!("{name}.proj");
                let init = kaiming_normal(widths[i], kernel);
                let embed = Convolution::new(spec, &proj, channels, kernel, geometry, true, init);
                (embed, LayerNorm::new(spec, &format!("{name}.norm"), widths[i], EMBED_EPS))
            })
            .collect();
        let mut stages = Vec::new();
        let mut index = 0;
        for (i, (embed, embed_norm)) in embeds.into_iter().enumerate() {
            let blocks = (0..depths[i])
                .map(|j| {
                    // The rate rises linearly from 0 at the first block to `drop_path` at the last.
                    let rate = drop_path * index as f32 / (total - 1) as f32;
                    let site = 2 * index;
                    index += 1;
                    let name = format!("{prefix}.block{}.{j}", i + 1);
                    Block::new(spec, &name, widths[i], HEADS[i], REDUCTION[i], rate, site)
                })
                .collect();
            let norm =
                LayerNorm::new(spec, &format!("{prefix}.norm{}", i + 1), widths[i], BLOCK_EPS);
            stages.push(Stage { embed, embed_norm, blocks, norm, recompute });
        }
        Ok(Mit { stages, widths })
    }

    /// Returns features B,⌈H/s⌉,⌈W/s⌉,C for strides s of 4, 8, 16 and 32. `image` is B,H,W,3.
    ///
    /// # Errors
    /// Returns a shape error if a side of the image is below 32 pixels.
    pub fn forward(&self, pass: &Pass, image: &Tensor) -> Result<[Tensor; 4]> {
        let [_, height, width, _] = image.bhwc("mit")?;
        if height.min(width) < SMALLEST {
            let problem = format!(
                "images must be at least {SMALLEST} pixels wide and high, \
                                   got {width}x{height}"
            );
            return Err(Error::shape("mit", problem));
        }
        let mut x = image.clone();
        let mut features = Vec::with_capacity(4);
        for stage in &self.stages {
            x = stage.forward(pass, &x)?;
            features.push(x.clone());
        }
        features.try_into().map_err(|_| Error::shape("mit", "a MiT backbone needs four stages"))
    }
}

/// Adds a fully connected layer of a block, initialized as the backbone does it.
fn linear(spec: &mut Spec, name: String, channels: [usize; 2]) -> Linear {
    Linear::new(spec, &name, channels, Init::TruncatedNormal(0.02), Init::Constant(0.0))
}

impl Stage {
    fn forward(&self, pass: &Pass, input: &Tensor) -> Result<Tensor> {
        let embedded = self.embed.forward_wide(pass, input)?;
        let mut x = self.embed_norm.stream(pass, &embedded)?;
        drop(embedded);
        let mut normed = self.blocks[0].norm1.forward(pass, &x)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let after = self.blocks.get(i + 1).map_or(&self.norm, |next| &next.norm1);
            (x, normed) = match self.recompute {
                true => block.checkpointed(pass, &x, &normed, after)?,
                false => block.forward(pass, &x, &normed, after)?,
            };
        }
        Ok(normed)
    }
}

impl Block {
    fn new(
        spec: &mut Spec,
        name: &str,
        width: usize,
        heads: usize,
        reduction: usize,
        drop_path: f32,
        site: usize,
    ) -> Block {
        let hidden = width * MLP_RATIO;
        Block {
            norm1: LayerNorm::new(spec, &format!("{name}.norm1"), width, BLOCK_EPS),
            attention: Attention::new(spec, &format!("{name}.attn"), width, heads, reduction),
            norm2: LayerNorm::new(spec, &format!("{name}.norm2"), width, BLOCK_EPS),
            fc1: linear(spec, format!("{name}.mlp.fc1"), [width, hidden]),
            depthwise: Depthwise::new(
                spec,
                &format!("{name}.mlp.dwconv.dwconv"),
                hidden,
                1,
                true,
                // The backbone divides the fan-out by the groups, which leaves the taps alone.
                kaiming_normal(1, 3),
            ),
            fc2: linear(spec, format!("{name}.mlp.fc2"), [hidden, width]),
            drop_path,
            site,
        }
    }

    /// Takes the residual stream `x` and its first norm `normed`. Returns the stream after the
    /// block and its norm by `after`.
    fn forward(
        &self,
        pass: &Pass,
        x: &Tensor,
        normed: &Tensor,
        after: &LayerNorm,
    ) -> Result<(Tensor, Tensor)> {
        let attended = self.attention.forward(pass, normed)?;
        let path = pass.drop_path(self.drop_path, self.site);
        let (x, normed) = self.norm2.add(pass, x, &attended, path)?;
        drop(attended);
        let hidden = self.fc1.forward(pass, &normed)?;
        let hidden = self.depthwise.forward_gelu(pass, &hidden)?;
        let mixed = self.fc2.forward(pass, &hidden)?;
        drop(hidden);
        let path = pass.drop_path(self.drop_path, self.site + 1);
        after.add(pass, &x, &mixed, path)
    }

    /// Runs [`forward`](Self::forward) with activation checkpointing, which saves memory and runs
    /// it again in the backward pass.
    fn checkpointed(
        &self,
        pass: &Pass,
        x: &Tensor,
        normed: &Tensor,
        after: &LayerNorm,
    ) -> Result<(Tensor, Tensor)> {
        let (block, after) = (self.clone(), *after);
        let forward = move |pass: &Pass, [x, normed]: [Tensor; 2]| {
            block.forward(pass, &x, &normed, &after).map(<[Tensor; 2]>::from)
        };
        pass.checkpointed([x, normed], forward).map(From::from)
    }
}

impl Attention {
    fn new(spec: &mut Spec, name: &str, width: usize, heads: usize, ratio: usize) -> Attention {
        let q = linear(spec, format!("{name}.q"), [width, width]);
        let kv = linear(spec, format!("{name}.kv"), [width, 2 * width]);
        let proj = linear(spec, format!("{name}.proj"), [width, width]);
        let reduction = (ratio > 1).then(|| {
            let geometry = Conv { stride: ratio, padding: 0, dilation: 1 };
            let (channels, init) = ([width, width], kaiming_normal(width, ratio));
            let sr = format!("{name}.sr");
            (
                Convolution::new(spec, &sr, channels, ratio, geometry, true, init),
                LayerNorm::new(spec, &format!("{name}.norm"), width, EMBED_EPS),
            )
        });
        Attention { q, kv, proj, reduction, heads, name: name.into() }
    }

    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let q = self.q.forward(pass, x)?;
        let kv = match &self.reduction {
            Some((conv, norm)) => {
                let reduced = conv.forward_wide(pass, x)?;
                let reduced = norm.forward(pass, &reduced)?;
                self.kv.forward(pass, &reduced)?
            }
            None => self.kv.forward(pass, x)?,
        };
        let tokens = |x: &Tensor| x.reshape(&[x.dim(0), x.rows() / x.dim(0), x.channels()]);
        let (q, kv) = (tokens(&q)?, tokens(&kv)?);
        let device = pass.tape.device();
        let attended = device
            .layer(|| self.name.clone(), || ops::attention(pass.tape, &q, &kv, self.heads))?;
        self.proj.forward(pass, &attended.reshape(x.shape())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn drop_path_rises_linearly_over_the_blocks() {
        for (name, blocks) in [("mit_b0", 8), ("mit_b5", 52)] {
            let sets = [format!("network.backbone={name}"), "network.drop_path=0.1".into()];
            let config = Config::load("gta_vit", &sets).unwrap().network;
            let mit = Mit::new(&mut Spec::default(), "backbone", &config).unwrap();
            let all: Vec<&Block> = mit.stages.iter().flat_map(|stage| &stage.blocks).collect();
            assert_eq!(all.len(), blocks);
            assert_eq!((all[0].drop_path, all[blocks - 1].drop_path), (0.0, 0.1));
            for (i, block) in all.iter().enumerate() {
                let expected = 0.1 * i as f32 / (blocks - 1) as f32;
                assert!((block.drop_path - expected).abs() < 1e-7, "{name}, block {i}");
                // Each block has two streams of its own.
                assert_eq!(block.site, 2 * i);
            }
        }
    }
}
