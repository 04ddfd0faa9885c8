//! Loads weight files, which have the names, shapes and layouts of the reference's state dicts,
//! into networks.

use std::collections::BTreeSet;

use super::names::{in_reference_names, other_backbone, other_decoder};
use super::tensor_file::TensorFile;
use crate::device::Device;
use crate::params::{ParamSpec, Spec, Weights};
use crate::{Error, Result};

/// Number of tensors listed in an error before "and N more".
const LISTED: usize = 8;

/// Selects one of the networks in a checkpoint. A file with a single network may have no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The trained network.
    Student,
    /// The moving average of the student.
    Teacher,
}

impl Network {
    /// Returns the prefix of the network's tensors.
    pub const fn prefix(self) -> &'static str {
        match self {
            Network::Student => "model.",
            Network::Teacher => "ema_model.",
        }
    }
}

/// Prefixes of tensors that do not belong to a network without a prefix.
const OTHERS: [&str; 6] =
    ["optimizer.", "templates.", "contrast.", "meta.", Network::Teacher.prefix(), IMAGENET_PREFIX];
/// Prefix of the frozen ImageNet model in the reference's checkpoints.
const IMAGENET_PREFIX: &str = "imnet_model.";
/// Prefix that `torch.nn.DataParallel` puts before every name.
const PARALLEL: &str = "module.";
/// Prefix of decoders that only training uses.
const AUXILIARY: &str = "auxiliary_head.";
/// Prefixes of classifiers and decoders, which weight files may have but backbones do not.
const CLASSIFIERS: [&str; 4] = ["head.", "fc.", "decode_head.", "auxiliary_head."];

/// Loads every tensor of a network. The file must hold each of them in the right shape, and no
/// others.
///
/// # Errors
/// [`Error::Weights`] that lists missing, misshapen and extra tensors.
pub fn load_network(
    file: &TensorFile,
    device: &Device,
    weights: &mut Weights,
    network: Network,
) -> Result<()> {
    let translated = in_reference_names(file).map(|(_, file)| file);
    let file = translated.as_ref().unwrap_or(file);
    let prefix = network_prefix(file, network)?;
    let there = (file.tensors().iter())
        .filter(|info| !prefix.is_empty() || !OTHERS.iter().any(|p| info.name.starts_with(p)))
        .filter_map(|info| Some(info.name.strip_prefix(prefix)?.to_string()))
        .filter(|name| !name.starts_with(AUXILIARY))
        .collect();
    if let Some(problem) = another_kind(file, &there, network) {
        return Err(Error::weights(file.path(), problem));
    }
    load(file, device, weights, there, |_| true, |name| format!("{prefix}{name}"))
}

/// Returns what a file holds, if that is not the network that is asked for.
fn another_kind(
    file: &TensorFile,
    there: &BTreeSet<String>,
    network: Network,
) -> Option<&'static str> {
    if let Some(what) = other_decoder(file).or_else(|| other_backbone(file)) {
        return Some(what);
    }
    if there.iter().any(|name| name.starts_with("decode_head.")) {
        return None;
    }
    if network == Network::Student && has(file, Network::Teacher.prefix()) {
        return Some("holds a teacher alone: `--weights teacher` selects it");
    }
    let parts = ["patch_embed1.proj.weight", "stem.0.weight"];
    let backbone = |name: &String| {
        parts
            .iter()
            .any(|part| name.strip_suffix(part).is_some_and(|p| p.is_empty() || p == "backbone."))
    };
    there.iter().any(backbone).then_some(
        "holds a backbone alone (ImageNet weights), not a segmentation network: train from it with \
         `--set weights.init=FILE`",
    )
}

/// Returns the prefix of a network's tensors in the file. For a student without a prefix, it is
/// empty, or the prefix of a model that several GPUs trained.
///
/// # Errors
/// [`Error::Weights`] if the file holds no teacher.
pub fn network_prefix(file: &TensorFile, network: Network) -> Result<&'static str> {
    let prefix = network.prefix();
    match (network, has(file, prefix)) {
        (_, true) => Ok(prefix),
        (Network::Student, false) if has(file, PARALLEL) => Ok(PARALLEL),
        (Network::Student, false) => Ok(""),
        (Network::Teacher, false) => {
            Err(Error::weights(file.path(), "holds no teacher (no tensor `ema_model.…`)"))
        }
    }
}

fn has(file: &TensorFile, prefix: &str) -> bool {
    file.tensors().iter().any(|info| info.name.starts_with(prefix))
}

/// Loads the backbone from ImageNet weights as published by SegFormer, OpenMMLab, Hugging Face and
/// timm (the classifier is ignored), from a segmentation network, or from the ImageNet model in a
/// checkpoint of the reference.
///
/// # Errors
/// [`Error::Weights`] that lists missing, misshapen and extra tensors.
pub fn load_backbone(file: &TensorFile, device: &Device, weights: &mut Weights) -> Result<()> {
    let translated = in_reference_names(file).map(|(_, file)| file);
    let file = translated.as_ref().unwrap_or(file);
    if let Some(what) = other_backbone(file) {
        return Err(Error::weights(file.path(), what));
    }
    let known = ["imnet_model.backbone.", "module.backbone.", PARALLEL, "backbone."];
    let prefix = known.into_iter().find(|prefix| has(file, prefix)).unwrap_or("");
    let there = (file.tensors().iter())
        .filter_map(|info| {
            let name = info.name.strip_prefix(prefix)?;
            let classifier = |name: &str| CLASSIFIERS.iter().any(|p| name.starts_with(p));
            (!classifier(name) && !classifier(&info.name)).then(|| format!("backbone.{name}"))
        })
        .collect();
    // `num_batches_tracked` has no effect here, and older files do not have it.
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

/// A tensor that a network needs but a file lacks or holds in another shape.
pub struct Misfit<'a> {
    /// The parameter or buffer.
    pub param: &'a ParamSpec,
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file; `None` if it is missing.
    pub found: Option<&'a [usize]>,
}

/// Compares a file with a network. `names` returns the names under which the file should hold a
/// parameter or buffer, or nothing if it is not required.
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
                None if is_optional(spec, &param.name) => {}
                other => found.push(Misfit { param, name, found: other }),
            }
        }
    }
    found
}

/// Loads the `wanted` parameters and buffers. `there` are the names of the file's tensors in the
/// network's naming, and `stored` maps such a name to the one in the file.
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
    for (what, names) in [("missing", missing), ("of the wrong shape", misshapen), ("extra", extra)]
    {
        if !names.is_empty() {
            let tensors = if names.len() == 1 { "tensor" } else { "tensors" };
            problems.push(format!("{} {tensors} {what}: {}", names.len(), listed(&names)));
        }
    }
    if !problems.is_empty() {
        let problem = format!("does not match this network\n  {}", problems.join("\n  "));
        return Err(Error::weights(file.path(), problem));
    }
    weights.load(device, |param| {
        let name = stored(&param.name);
        if !wanted(param) || (is_optional(&spec, &param.name) && file.find(&name).is_none()) {
            return Ok(None);
        }
        file.numbers(&name).map(Some)
    })?;
    Ok(())
}

/// Returns whether a buffer counts the batches that a batch norm has seen. Files may lack it:
/// PyTorch 0.4 did not count batches, and later versions do not need the count.
pub fn is_count(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// Returns whether files may lack a parameter or buffer because no result depends on it.
fn is_optional(spec: &Spec, name: &str) -> bool {
    // SegFormer's decoder inherits a classifier and uses another one.
    let unused = || {
        let (start, _) = name.split_once("conv_seg.")?;
        let used = format!("{start}linear_pred.weight");
        spec.params().iter().find(|param| param.name == used)
    };
    is_count(name) || unused().is_some()
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
