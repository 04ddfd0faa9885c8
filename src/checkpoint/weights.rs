//! Weight files: from the names, shapes and layouts of the reference's state dict to a network's.

use std::collections::BTreeSet;

use super::tensor_file::TensorFile;
use crate::device::Device;
use crate::params::{ParamSpec, Spec, Weights};
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
    pub const fn prefix(self) -> &'static str {
        match self {
            Network::Student => "model.",
            Network::Teacher => "ema_model.",
        }
    }
}

/// Beside a network without a prefix, these belong to something else.
const OTHERS: [&str; 5] =
    ["optimizer.", "templates.", "meta.", Network::Teacher.prefix(), IMAGENET_PREFIX];
/// The frozen ImageNet model in the reference's checkpoints.
const IMAGENET_PREFIX: &str = "imnet_model.";
/// What ImageNet weights have that no backbone has: classifiers.
const CLASSIFIERS: [&str; 4] = ["head.", "fc.", "decode_head.", "auxiliary_head."];

/// Loads every tensor of a network; the file must hold each of them in its shape, and no other.
pub fn load_network(
    file: &TensorFile,
    device: &Device,
    weights: &mut Weights,
    network: Network,
) -> Result<()> {
    let prefix = network_prefix(file, network)?;
    let there = (file.tensors().iter())
        .filter(|info| !prefix.is_empty() || !OTHERS.iter().any(|p| info.name.starts_with(p)))
        .filter_map(|info| Some(info.name.strip_prefix(prefix)?.to_string()))
        .collect();
    load(file, device, weights, there, |_| true, |name| format!("{prefix}{name}"))
}

/// The prefix of a network's tensors; a file that holds a student alone may have none.
pub fn network_prefix(file: &TensorFile, network: Network) -> Result<&'static str> {
    let prefix = network.prefix();
    match (network, has(file, prefix)) {
        (_, true) => Ok(prefix),
        (Network::Student, false) => Ok(""),
        (Network::Teacher, false) => {
            Err(Error::weights(file.path(), "holds no teacher (no tensor `ema_model.…`)"))
        }
    }
}

fn has(file: &TensorFile, prefix: &str) -> bool {
    file.tensors().iter().any(|info| info.name.starts_with(prefix))
}

/// Loads the backbone from ImageNet weights: as SegFormer and OpenMMLab publish them (names without
/// `backbone.`, and a classifier that is left out), a segmentor's, or the ImageNet model in a
/// checkpoint of the reference.
pub fn load_backbone(file: &TensorFile, device: &Device, weights: &mut Weights) -> Result<()> {
    let known = ["imnet_model.backbone.", "backbone."];
    let prefix = known.into_iter().find(|prefix| has(file, prefix)).unwrap_or("");
    let there = (file.tensors().iter())
        .filter(|info| !CLASSIFIERS.iter().any(|p| info.name.starts_with(p)))
        .filter_map(|info| Some(format!("backbone.{}", info.name.strip_prefix(prefix)?)))
        .collect();
    // How many batches a norm has seen says nothing here, and older files do not tell.
    let uncounted = |name: &str| name.ends_with(".num_batches_tracked");
    let counted = file.tensors().iter().any(|info| uncounted(&info.name));
    load(
        file,
        device,
        weights,
        there,
        |param| param.name.starts_with("backbone.") && (counted || !uncounted(&param.name)),
        |name| format!("{prefix}{}", name.trim_start_matches("backbone.")),
    )
}

/// A tensor that a network needs and a file does not hold, or holds in another shape.
pub struct Misfit<'a> {
    pub param: &'a ParamSpec,
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file; none where it is missing.
    pub found: Option<&'a [usize]>,
}

/// Compares a file with a network; `names`: those under which the file should hold a parameter or
/// buffer, none where it need not.
pub fn misfits<'a>(
    file: &'a TensorFile,
    spec: &'a Spec,
    names: impl Fn(&ParamSpec) -> Vec<String>,
) -> Vec<Misfit<'a>> {
    let mut found = Vec::new();
    for param in spec.params().iter().chain(spec.buffers()) {
        for name in names(param) {
            match file.find(&name).map(|info| info.shape.as_slice()) {
                Some(shape) if shape == param.shape => {}
                None if is_count(&name) => {}
                other => found.push(Misfit { param, name, found: other }),
            }
        }
    }
    found
}

/// `there`: what the file holds, by the names used here; `stored`: from those to the file's own.
fn load(
    file: &TensorFile,
    device: &Device,
    weights: &mut Weights,
    mut there: BTreeSet<String>,
    wanted: impl Fn(&ParamSpec) -> bool,
    stored: impl Fn(&str) -> String,
) -> Result<()> {
    let spec = weights.spec().clone();
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    let names =
        |param: &ParamSpec| wanted(param).then(|| stored(&param.name)).into_iter().collect();
    for Misfit { param, found, .. } in misfits(file, &spec, names) {
        match found {
            None => missing.push(param.name.clone()),
            Some(shape) => {
                misshapen.push(format!("{} is {shape:?}, not {:?}", param.name, param.shape));
            }
        }
    }
    for param in spec.params().iter().chain(spec.buffers()).filter(|param| wanted(param)) {
        there.remove(&param.name);
    }
    let extra: Vec<String> = there.into_iter().collect();
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
        let name = stored(&param.name);
        if !wanted(param) || (is_count(&name) && file.find(&name).is_none()) {
            return Ok(None);
        }
        file.numbers(&name).map(Some)
    })?;
    Ok(())
}

/// Batches that a norm has seen: PyTorch 0.4 did not count them, and none later needs them.
pub fn is_count(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
