//! Weight files: from the names, shapes and layouts of the reference's state dict to a network's.

use std::collections::BTreeMap;

use super::tensor_file::TensorFile;
use crate::device::Device;
use crate::params::{ParamSpec, Weights};
use crate::{Error, Result};

/// Tensors listed in an error before "and N more".
const LISTED: usize = 8;

/// Which of the networks in a checkpoint is meant; a file with one network has no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Student,
    Teacher,
}

impl Network {
    pub fn prefix(self) -> &'static str {
        match self {
            Network::Student => "model.",
            Network::Teacher => "ema_model.",
        }
    }
}

/// Loads every tensor of a network; the file must hold each of them in its shape, and no other.
pub fn load_network(
    file: &TensorFile,
    device: &Device,
    weights: &mut Weights,
    network: Network,
) -> Result<()> {
    let shapes = file.shapes();
    let prefix = network.prefix();
    let prefixed = shapes.iter().any(|(name, _)| name.starts_with(prefix));
    if network == Network::Teacher && !prefixed {
        return Err(Error::weights(file.path(), "holds no teacher (no tensor `ema_model.…`)"));
    }
    let prefix = if prefixed { prefix } else { "" };
    let there = (shapes.into_iter())
        .filter_map(|(name, shape)| Some((name.strip_prefix(prefix)?.to_string(), shape)))
        .collect();
    load(file, device, weights, there, |_| true, |name| format!("{prefix}{name}"))
}

/// Loads the backbone from ImageNet weights as SegFormer and OpenMMLab publish them: names without
/// `backbone.`, and a classifier (`head.…`, `fc.…`) that is left out.
pub fn load_backbone(file: &TensorFile, device: &Device, weights: &mut Weights) -> Result<()> {
    let named = |name: &str| name.starts_with("backbone.");
    let prefix = if file.shapes().iter().any(|(name, _)| named(name)) { "backbone." } else { "" };
    let there = (file.shapes().into_iter())
        .filter(|(name, _)| !["head.", "fc.", "decode_head."].iter().any(|p| name.starts_with(p)))
        .filter_map(|(name, shape)| {
            Some((format!("backbone.{}", name.strip_prefix(prefix)?), shape))
        })
        .collect();
    // How many batches a norm has seen says nothing here, and older files do not tell.
    let uncounted = |name: &str| name.ends_with(".num_batches_tracked");
    let counted = file.shapes().iter().any(|(name, _)| uncounted(name));
    load(
        file,
        device,
        weights,
        there,
        |param| named(&param.name) && (counted || !uncounted(&param.name)),
        |name| format!("{prefix}{}", name.trim_start_matches("backbone.")),
    )
}

/// `there`: shapes in the file by the names used here; `stored`: from those to the file's own.
fn load(
    file: &TensorFile,
    device: &Device,
    weights: &mut Weights,
    mut there: BTreeMap<String, Vec<usize>>,
    wanted: impl Fn(&ParamSpec) -> bool,
    stored: impl Fn(&str) -> String,
) -> Result<()> {
    let spec = weights.spec().clone();
    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    for param in spec.params().iter().chain(spec.buffers()).filter(|param| wanted(param)) {
        match there.remove(&param.name) {
            None => missing.push(param.name.clone()),
            Some(shape) if shape != param.shape => {
                misshapen.push(format!("{} is {shape:?}, not {:?}", param.name, param.shape));
            }
            Some(_) => {}
        }
    }
    let extra: Vec<String> = there.into_keys().collect();
    let mut problems = Vec::new();
    for (what, names) in [("missing", missing), ("of another shape", misshapen), ("extra", extra)] {
        if !names.is_empty() {
            let tensors = if names.len() == 1 { "tensor" } else { "tensors" };
            problems.push(format!("{} {tensors} {what}: {}", names.len(), listed(&names)));
        }
    }
    if !problems.is_empty() {
        let problem = format!("does not fit this network\n  {}", problems.join("\n  "));
        return Err(Error::weights(file.path(), problem));
    }
    weights.load(device, |param| {
        if !wanted(param) {
            return Ok(None);
        }
        file.numbers(&stored(&param.name)).map(Some)
    })?;
    Ok(())
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
