//! Names that other projects give to the tensors of the networks here.
//!
//! The same weights are published under several names: SegFormer's by their authors, by Hugging Face
//! and by OpenMMLab, ResNets with a deep stem by OpenMMLab and by timm. Some also stack or split
//! tensors. A file of another project is presented under the reference's names, so that identifying,
//! verifying and loading need to know only those.

use std::fmt;

use super::tensor_file::{TensorFile, TensorInfo};

/// A project whose names a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `segformer.encoder.block.0.0.attention.self.query`; keys and values are separate.
    HuggingFace,
    /// MiT as in OpenMMLab's MMSegmentation from 0.13 on, `layers.0.1.0.attn.attn.in_proj_weight`:
    /// queries, keys and values are stacked, and the MLP's matrices are 1×1 convolutions.
    OpenMmlab,
    /// SegFormer's trained networks by NVIDIA: `decode_head.linear_c1`.
    Nvidia,
    /// ResNets with a deep stem in timm, `conv1.0`.
    Timm,
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Naming::HuggingFace => "Hugging Face's",
            Naming::OpenMmlab => "OpenMMLab's (MMSegmentation 0.13 or later)",
            Naming::Nvidia => "NVIDIA's (SegFormer)",
            Naming::Timm => "timm's",
        })
    }
}

/// Prefix of the names of a model that several GPUs trained.
const PARALLEL: &str = "module.";

/// Returns a file under the reference's names if its own are those of another project.
pub fn in_reference_names(file: &TensorFile) -> Option<(Naming, TensorFile)> {
    let naming = naming(file)?;
    let tensors = file.tensors().iter().flat_map(|info| {
        let name = info.name.strip_prefix(PARALLEL).unwrap_or(&info.name);
        let parts: Vec<&str> = name.split('.').collect();
        match naming {
            Naming::HuggingFace => hugging_face(file, info, &parts),
            Naming::OpenMmlab => open_mmlab(info, &parts),
            Naming::Nvidia => vec![nvidia(info, name)],
            Naming::Timm => vec![timm(info, name)],
        }
    });
    Some((naming, file.with_tensors(tensors.collect())))
}

fn naming(file: &TensorFile) -> Option<Naming> {
    let has = |tail: &str| find(file, tail).is_some();
    if has("encoder.patch_embeddings.0.proj.weight") {
        Some(Naming::HuggingFace)
    } else if has("layers.0.0.projection.weight") && has("layers.0.1.0.attn.attn.in_proj_weight") {
        Some(Naming::OpenMmlab)
    } else if has("decode_head.linear_c1.proj.weight") {
        Some(Naming::Nvidia)
    } else if has("conv1.6.weight") && !has("layer1.0.downsample.2.weight") {
        Some(Naming::Timm)
    } else {
        None
    }
}

/// Returns the number after a zero-based one, because the reference counts stages from 1.
fn next(number: &str) -> String {
    number.parse().map_or_else(|_| number.into(), |n: usize| (n.saturating_add(1)).to_string())
}

fn hugging_face(file: &TensorFile, info: &TensorInfo, parts: &[&str]) -> Vec<TensorInfo> {
    let parts = parts.strip_prefix(&["segformer"]).unwrap_or(parts);
    let name = match parts {
        ["encoder", "patch_embeddings", stage, "layer_norm", rest] => {
            format!("backbone.patch_embed{}.norm.{rest}", next(stage))
        }
        ["encoder", "patch_embeddings", stage, rest @ ..] => {
            format!("backbone.patch_embed{}.{}", next(stage), rest.join("."))
        }
        ["encoder", "layer_norm", stage, rest] => format!("backbone.norm{}.{rest}", next(stage)),
        ["encoder", "block", stage, block, rest @ ..] => {
            let start = format!("backbone.block{}.{block}", next(stage));
            match rest {
                ["attention", "self", "query", rest] => format!("{start}.attn.q.{rest}"),
                // The reference stacks keys on values.
                ["attention", "self", "value", _] => return Vec::new(),
                ["attention", "self", "key", rest] => {
                    let name = format!("{start}.attn.kv.{rest}");
                    let value = info.name.replace(".self.key.", ".self.value.");
                    let Some(value) = file.find(&value) else { return vec![info.named(name)] };
                    return vec![info.stacked(value, name)];
                }
                ["attention", "self", "sr", rest] => format!("{start}.attn.sr.{rest}"),
                ["attention", "self", "layer_norm", rest] => format!("{start}.attn.norm.{rest}"),
                ["attention", "output", "dense", rest] => format!("{start}.attn.proj.{rest}"),
                ["layer_norm_1", rest] => format!("{start}.norm1.{rest}"),
                ["layer_norm_2", rest] => format!("{start}.norm2.{rest}"),
                ["mlp", "dense1", rest] => format!("{start}.mlp.fc1.{rest}"),
                ["mlp", "dense2", rest] => format!("{start}.mlp.fc2.{rest}"),
                rest => format!("{start}.{}", rest.join(".")),
            }
        }
        // The classifier of the network that ImageNet trained.
        ["classifier", rest] => format!("head.{rest}"),
        ["decode_head", "linear_fuse", rest] => format!("decode_head.linear_fuse.conv.{rest}"),
        ["decode_head", "batch_norm", rest] => format!("decode_head.linear_fuse.bn.{rest}"),
        ["decode_head", "classifier", rest] => format!("decode_head.linear_pred.{rest}"),
        parts => parts.join("."),
    };
    vec![info.named(name)]
}

fn open_mmlab(info: &TensorInfo, parts: &[&str]) -> Vec<TensorInfo> {
    let parts = parts.strip_prefix(&["backbone"]).unwrap_or(parts);
    let ["layers", stage, part, rest @ ..] = parts else {
        return vec![info.named(parts.join("."))];
    };
    let stage = next(stage);
    let name = match (*part, rest) {
        ("0", ["projection", rest]) => format!("backbone.patch_embed{stage}.proj.{rest}"),
        ("0", rest) => format!("backbone.patch_embed{stage}.{}", rest.join(".")),
        ("2", rest) => format!("backbone.norm{stage}.{}", rest.join(".")),
        ("1", [block, rest @ ..]) => {
            let start = format!("backbone.block{stage}.{block}");
            match rest {
                ["attn", "attn", stacked @ ("in_proj_weight" | "in_proj_bias")] => {
                    let kind = stacked.trim_start_matches("in_proj_");
                    let names =
                        [format!("{start}.attn.q.{kind}"), format!("{start}.attn.kv.{kind}")];
                    let rows = info.shape.first().copied().unwrap_or(0);
                    let [q, kv] = names;
                    return vec![info.rows(0..rows / 3, q), info.rows(rows / 3..rows, kv)];
                }
                ["attn", "attn", "out_proj", rest] => format!("{start}.attn.proj.{rest}"),
                ["ffn", "layers", "0", rest] => {
                    return vec![info.matrix(format!("{start}.mlp.fc1.{rest}"))];
                }
                ["ffn", "layers", "1", rest] => format!("{start}.mlp.dwconv.dwconv.{rest}"),
                ["ffn", "layers", "4", rest] => {
                    return vec![info.matrix(format!("{start}.mlp.fc2.{rest}"))];
                }
                rest => format!("{start}.{}", rest.join(".")),
            }
        }
        _ => parts.join("."),
    };
    vec![info.named(name)]
}

fn nvidia(info: &TensorInfo, name: &str) -> TensorInfo {
    let level = (1..=4).find_map(|level: usize| {
        let rest = name.strip_prefix(&format!("decode_head.linear_c{level}."))?;
        Some(format!("decode_head.linear_c.{}.{rest}", level - 1))
    });
    info.named(level.unwrap_or_else(|| name.into()))
}

fn timm(info: &TensorInfo, name: &str) -> TensorInfo {
    let stem = name.strip_prefix("conv1.").map(|rest| format!("stem.{rest}"));
    let norm = || name.strip_prefix("bn1.").map(|rest| format!("stem.7.{rest}"));
    info.named(stem.or_else(norm).unwrap_or_else(|| name.into()))
}

/// Says what a file is if its decoder looks like one of those here and is not.
pub fn other_decoder(file: &TensorFile) -> Option<&'static str> {
    find(file, "decode_head.fusion_conv.conv.weight").map(|_| {
        "holds OpenMMLab's SegFormer, whose decoder has a batch norm in every branch and is not \
         implemented here: use the authors' or Hugging Face's weights, or only its backbone \
         (weights.init)"
    })
}

/// Says what a file is if its backbone looks like one of those here and is not.
pub fn other_backbone(file: &TensorFile) -> Option<&'static str> {
    find(file, "layer1.0.conv1.weight")?;
    if find(file, "layer1.0.downsample.2.weight").is_some() {
        return Some(
            "holds a ResNet-D, whose shortcuts average: the ResNets here are v1c, such as \
             OpenMMLab's resnet101_v1c (see weights/README.md)",
        );
    }
    let stem = |info: &TensorInfo| {
        info.name.ends_with("conv1.weight") && info.shape.get(2..) == Some(&[7, 7])
    };
    file.tensors().iter().any(stem).then_some(
        "holds torchvision's ResNet, whose stem is one 7x7 convolution: the ResNets here are v1c, \
         with three 3x3 convolutions, such as OpenMMLab's resnet101_v1c (see weights/README.md)",
    )
}

/// Finds a tensor by the end of its name, whatever prefix is before it.
fn find<'a>(file: &'a TensorFile, tail: &str) -> Option<&'a TensorInfo> {
    let ends = |name: &str| {
        name.strip_suffix(tail).is_some_and(|start| start.is_empty() || start.ends_with('.'))
    };
    file.tensors().iter().find(|info| ends(&info.name))
}
