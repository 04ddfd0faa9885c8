//! Identifies a weight file by its keys and shapes.

use std::fmt;

use super::names::{Naming, in_reference_names};
use super::pth::Node;
use super::tensor_file::TensorFile;
use super::weights::{Misfit, Network, misfits};
use crate::config::{Config, NetworkConfig};
use crate::nn::Segmentor;
use crate::params::ParamSpec;
use crate::{Error, Result};

/// The key of a torch file converted from a run's checkpoint for data that the reference's format
/// cannot hold.
pub(super) const OWN: &str = "udass_raw";
/// The metadata key of a run's configuration.
pub(super) const CONFIG: &str = "config";
/// The metadata key of what identifies a run: a digest of all that its results depend on.
pub const RUN: &str = "run";
/// The largest iteration of a checkpoint. Up to here, differences of iterations do not overflow and
/// programs that read numbers in double precision read them exactly.
pub(super) const MAX_ITERATION: u64 = 1 << 53;

/// The kind of a weight file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A checkpoint of this program, with the complete state of a run.
    Run,
    /// A checkpoint of DAFormer, HRDA, MIC or UDASS, which share their keys: student, teacher,
    /// ImageNet model.
    Adaptation,
    /// A single segmentation network.
    Segmentor,
    /// A backbone without a decoder, trained on ImageNet.
    Backbone,
    /// Tensors of no known network.
    Other,
}

/// The content of a weight file, as derived from its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The kind of the file.
    pub kind: Kind,
    /// Whether it holds a student under the prefix `model.`.
    pub student: bool,
    /// Whether it holds a teacher.
    pub teacher: bool,
    /// Whether it holds the frozen ImageNet model.
    pub imagenet: bool,
    /// The backbone: `mit_b0` … `mit_b5`, `resnet50_v1c` or `resnet101_v1c`.
    pub backbone: Option<&'static str>,
    /// The decoder: `daformer`, `dlv2` or `segformer`.
    pub head: Option<&'static str>,
    /// Whether the decoder is wrapped by HRDA.
    pub hrda: bool,
    /// Number of classes.
    pub classes: Option<usize>,
    /// Number of channels of the decoder.
    pub channels: Option<usize>,
    /// Number of iterations that the weights were trained for.
    pub iteration: Option<u64>,
    /// Whose names the file has, if not the reference's.
    pub naming: Option<Naming>,
}

/// Returns the next iteration of a checkpoint of this program or of the reference.
///
/// # Errors
/// [`Error::Weights`] if the file's metadata is malformed, or the number is larger than that of any
/// run.
pub fn iteration(file: &TensorFile) -> Result<Option<u64>> {
    let bounded = |number: u64| match number <= MAX_ITERATION {
        true => Ok(number),
        false => Err(Error::weights(file.path(), format!("its iteration, {number}, is too large"))),
    };
    if let Some(text) = file.metadata("iteration") {
        let number = text.parse().map_err(|_| {
            Error::weights(file.path(), format!("its iteration, `{text}`, is not a number"))
        })?;
        return bounded(number).map(Some);
    }
    let tree = file.tree()?;
    let iteration = tree.as_ref().and_then(|tree| tree.get("meta")?.get("iter"));
    Ok(match iteration {
        Some(Node::Int(number)) => u64::try_from(*number).ok().map(bounded).transpose()?,
        _ => None,
    })
}

/// Returns the configuration that a run left in its checkpoint, as TOML; conversion keeps it.
///
/// # Errors
/// [`Error::Weights`] if the file's metadata is malformed.
pub fn configuration(file: &TensorFile) -> Result<Option<String>> {
    if let Some(text) = file.metadata(CONFIG) {
        return Ok(Some(text.into()));
    }
    let tree = file.tree()?;
    let own = tree.as_ref().and_then(|tree| tree.get(OWN)?.get("strings")?.get(CONFIG));
    Ok(match own {
        Some(Node::Text(text)) => Some(text.clone()),
        _ => None,
    })
}

/// Identifies a file.
///
/// # Errors
/// [`Error::Weights`] if the file's metadata is malformed.
pub fn identify(file: &TensorFile) -> Result<Identity> {
    let translated = in_reference_names(file);
    let naming = translated.as_ref().map(|(naming, _)| *naming);
    let file = translated.as_ref().map_or(file, |(_, file)| file);
    let has = |prefix: &str| file.tensors().iter().any(|info| info.name.starts_with(prefix));
    let (student, teacher) = (has(Network::Student.prefix()), has(Network::Teacher.prefix()));
    let imagenet = has("imnet_model.");
    let root = match (student, teacher) {
        (true, _) => Network::Student.prefix(),
        (false, true) => Network::Teacher.prefix(),
        (false, false) if has("module.") => "module.",
        (false, false) => "",
    };
    let head = format!("{root}decode_head.");
    let segments = has(&head);
    let inner = if segments || has(&format!("{root}backbone.")) { "backbone." } else { "" };
    let hrda = has(&format!("{head}head."));
    let head = if hrda { format!("{head}head.") } else { head };
    let backbone = backbone(file, &format!("{root}{inner}"));
    let kind = match file.metadata("format") {
        Some(format) if format.starts_with("udass-raw checkpoint") => Kind::Run,
        _ if student && (teacher || imagenet) => Kind::Adaptation,
        _ if segments => Kind::Segmentor,
        _ if backbone.is_some() => Kind::Backbone,
        _ => Kind::Other,
    };
    let known =
        [("fuse_layer.", "daformer"), ("aspp_modules.", "dlv2"), ("linear_fuse.", "segformer")];
    let decoder = known.into_iter().find(|(part, _)| has(&format!("{head}{part}")));
    let classifier = ["linear_pred.weight", "conv_seg.weight", "aspp_modules.0.conv.weight"];
    let classifier = classifier.iter().find_map(|part| file.find(&format!("{head}{part}")));
    let axis = |axis: usize| classifier.and_then(|info| info.shape.get(axis).copied());
    Ok(Identity {
        kind,
        student,
        teacher,
        imagenet,
        backbone,
        head: decoder.map(|(_, name)| name),
        hrda,
        classes: axis(0),
        channels: axis(1),
        iteration: iteration(file)?,
        naming,
    })
}

fn backbone(file: &TensorFile, prefix: &str) -> Option<&'static str> {
    // In both families, the number of blocks in the third stage identifies the variant.
    let blocks = |stage: &str| {
        let stage = format!("{prefix}{stage}.");
        let index = |name: &str| name.strip_prefix(&stage)?.split('.').next()?.parse().ok();
        let indices = file.tensors().iter().filter_map(|info| index(&info.name));
        indices.max().map_or(0usize, |last: usize| last.saturating_add(1))
    };
    if let Some(embed) = file.find(&format!("{prefix}patch_embed1.proj.weight")) {
        return match (embed.shape.first(), blocks("block3")) {
            (Some(32), 2) => Some("mit_b0"),
            (Some(64), 2) => Some("mit_b1"),
            (Some(64), 6) => Some("mit_b2"),
            (Some(64), 18) => Some("mit_b3"),
            (Some(64), 27) => Some("mit_b4"),
            (Some(64), 40) => Some("mit_b5"),
            _ => None,
        };
    }
    file.find(&format!("{prefix}stem.0.weight"))?;
    match blocks("layer3") {
        6 => Some("resnet50_v1c"),
        23 => Some("resnet101_v1c"),
        _ => None,
    }
}

impl Identity {
    /// Returns the configuration of the file's network, if this program implements it.
    pub fn network(&self) -> Option<NetworkConfig> {
        let mut config = Config::preset("gta_vit").ok()?.network;
        config.backbone = self.backbone?.into();
        config.hrda.enabled = self.hrda;
        if self.kind != Kind::Backbone {
            config.head = self.head?.into();
            config.classes = self.classes?;
            config.channels = self.channels?;
        }
        Some(config)
    }
}

/// Checks that each network in the file has all its tensors in the right shapes; the error lists
/// what is missing. Returns `None` if this program does not implement the network.
pub fn complete(file: &TensorFile, identity: &Identity) -> Option<Result<()>> {
    let translated = in_reference_names(file);
    let file = translated.as_ref().map_or(file, |(_, file)| file);
    let network = Segmentor::new(&identity.network()?).ok()?;
    let here = [
        (identity.student, Network::Student.prefix()),
        (identity.teacher, Network::Teacher.prefix()),
        (identity.imagenet, "imnet_model."),
    ];
    let mut prefixes: Vec<&str> = here.into_iter().filter(|p| p.0).map(|p| p.1).collect();
    if prefixes.is_empty() {
        let parallel = file.tensors().iter().any(|info| info.name.starts_with("module."));
        prefixes.push(if parallel { "module." } else { "" });
    }
    let alone = identity.kind == Kind::Backbone;
    let names = |param: &ParamSpec| {
        let name = match (alone, param.name.strip_prefix("backbone.")) {
            (true, None) => return Vec::new(),
            (true, Some(_)) if file.find(&param.name).is_some() => &param.name,
            (true, Some(name)) => name,
            (false, _) => param.name.as_str(),
        };
        prefixes.iter().map(|prefix| format!("{prefix}{name}")).collect()
    };
    let tell = |Misfit { param, name, found }: Misfit| match found {
        Some(shape) => format!("`{name}` is {shape:?}, not {:?}", param.shape),
        None => format!("`{name}` is missing"),
    };
    let spec = network.spec();
    let mut problems: Vec<String> = misfits(file, spec, names).into_iter().map(tell).collect();
    let more = problems.len().saturating_sub(8);
    problems.truncate(8);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    Some(match problems.as_slice() {
        [] => Ok(()),
        problems => {
            Err(Error::weights(file.path(), format!("is incomplete: {}", problems.join(", "))))
        }
    })
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Run => "checkpoint of a udass-raw run",
            Kind::Adaptation => "checkpoint of DAFormer, HRDA, MIC or UDASS",
            Kind::Segmentor => "segmentation network",
            Kind::Backbone => "backbone (ImageNet weights)",
            Kind::Other => "tensors of an unknown network",
        };
        f.write_str(kind)?;
        let networks = [
            (self.student, "student"),
            (self.teacher, "teacher"),
            (self.imagenet, "ImageNet model"),
        ];
        let networks: Vec<&str> = networks.into_iter().filter(|n| n.0).map(|n| n.1).collect();
        if !networks.is_empty() {
            write!(f, ": {}", networks.join(", "))?;
        }
        if let Some(iteration) = self.iteration {
            write!(f, "; iteration {iteration}")?;
        }
        if let Some(backbone) = self.backbone {
            write!(f, "; {backbone}")?;
        }
        if let Some(head) = self.head {
            write!(f, ", {}{head}", if self.hrda { "HRDA " } else { "" })?;
        }
        if let Some(classes) = self.classes {
            write!(f, ", {classes} classes")?;
        }
        self.naming.map_or(Ok(()), |naming| write!(f, "; names are {naming}"))
    }
}
