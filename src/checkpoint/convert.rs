//! Converts weight files between formats. Names, elements, types and order are kept.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;

use super::identity::{CONFIG, Identity, Kind, OWN, configuration, identify};
use super::moments::{MOMENTS, first_update, parameters};
use super::pth::{self, Node};
use super::tensor_file::{TORCH_TREE, TensorFile, TensorInfo};
use super::weights::{Network, network_prefix};
use super::writer::{self, Entry};
use crate::config::{Config, OptimizerConfig};
use crate::nn::PROJECTION;
use crate::{Error, Result};

/// The metadata key under which PyTorch's and Hugging Face's tools look for what a safetensors file
/// was written from, and their value for PyTorch.
pub(super) const FORMAT: [&str; 2] = ["format", "pt"];

/// Writes `file` in the format given by the extension of `out`. With `only`, it writes just that
/// network, without its prefix.
///
/// Written as `.pth`, a run's checkpoint becomes a checkpoint of the reference: `meta.iter`,
/// `state_dict`, and `optimizer` with parameters numbered as by `torch.optim.AdamW` and parameter
/// groups for the reference's three networks. Converting back is exact in every case.
///
/// # Errors
/// [`Error::Weights`] if the extension is unknown, `out` is `file` itself, the network or metadata
/// is missing, or a tensor holds a value that is not finite; [`Error::Io`].
pub fn convert(file: &TensorFile, out: &Path, only: Option<Network>) -> Result<()> {
    let extension = out.extension().and_then(|e| e.to_str());
    let to_torch = match extension {
        Some("pth" | "pt") => true,
        Some("safetensors") => false,
        _ => {
            let problem = "the output must end in .pth or .safetensors";
            return Err(Error::weights(out, problem));
        }
    };
    let same = |path: &Path| path.canonicalize().ok();
    if same(out).is_some_and(|out| same(file.path()) == Some(out)) {
        return Err(Error::weights(out, "is the input file: choose another name for the output"));
    }
    // A tensor that could not be loaded afterwards is not converted either.
    let real = |info: &&TensorInfo| {
        matches!(info.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    };
    for info in file.tensors().iter().filter(real) {
        file.numbers(&info.name)?;
    }
    let identity = identify(file)?;
    let (named, tree, strings) = match only {
        Some(network) => one(file, network)?,
        None if to_torch && identity.kind == Kind::Run => reference(file, &identity)?,
        None => whole(file)?,
    };
    let entries = named.into_iter().map(|(name, info)| Entry {
        name,
        dtype: info.dtype,
        shape: info.shape.clone(),
        bytes: Box::new(move || file.data(info)),
    });
    let entries: Vec<Entry> = entries.collect();
    if to_torch {
        let bare = || Node::Ordered(entries.iter().map(|e| leaf(&e.name, &e.name)).collect());
        let tree = tree.unwrap_or_else(bare);
        return pth::write(out, &tree, entries);
    }
    let mut strings = strings;
    let [key, value] = FORMAT;
    strings.entry(key.into()).or_insert_with(|| value.into());
    // A plain state dict has no tree here, because it can be rebuilt from the tensors.
    strings.extend(tree.map(|tree| (TORCH_TREE.into(), tree.to_json().to_string())));
    writer::write(out, entries, strings)
}

type Converted<'a> = (Vec<(String, &'a TensorInfo)>, Option<Node>, BTreeMap<String, String>);

fn leaf(key: &str, tensor: &str) -> (Node, Node) {
    (Node::text(key), Node::Tensor(tensor.into()))
}

/// Extracts one network of a file, as `state_dict`.
fn one(file: &TensorFile, network: Network) -> Result<Converted<'_>> {
    let prefix = network_prefix(file, network)?;
    let named: Vec<_> = (file.tensors().iter())
        .filter_map(|info| Some((info.name.strip_prefix(prefix)?.to_owned(), info)))
        .collect();
    let state = named.iter().map(|(name, _)| leaf(name, name)).collect();
    let state = Node::Ordered(state);
    let Some(text) = configuration(file)? else {
        return Ok((named, Some(Node::dict([("state_dict", state)])), BTreeMap::new()));
    };
    let kept = Node::dict([("strings", Node::dict([(CONFIG, Node::text(&text))]))]);
    let tree = Node::dict([("state_dict", state), (OWN, kept)]);
    Ok((named, Some(tree), BTreeMap::from([(CONFIG.into(), text)])))
}

/// Converts the whole file unchanged.
fn whole(file: &TensorFile) -> Result<Converted<'_>> {
    let tree = file.tree()?;
    let run = |own: &&Node| own.get("templates").is_some();
    if let Some(own) = tree.as_ref().and_then(|tree| tree.get(OWN)).filter(run) {
        return run_again(file, own);
    }
    let named: Vec<_> = file.tensors().iter().map(|info| (info.name.clone(), info)).collect();
    let bare = |items: &[(Node, Node)]| {
        items.len() == named.len()
            && items.iter().zip(&named).all(|(item, (name, _))| *item == leaf(name, name))
    };
    let tree = tree.filter(|tree| !matches!(tree, Node::Ordered(items) if bare(items)));
    let mut strings = file.strings().clone();
    strings.remove(TORCH_TREE);
    Ok((named, tree, strings))
}

/// Converts a run's checkpoint to the reference's layout.
fn reference<'a>(file: &'a TensorFile, identity: &Identity) -> Result<Converted<'a>> {
    let missing = |key: &str| Error::weights(file.path(), format!("its `{key}` is missing"));
    let iteration = identity.iteration.ok_or_else(|| missing("iteration"))?;
    let text = file.metadata("config").ok_or_else(|| missing("config"))?;
    let config = Config::from_toml(text, &format!("configuration in {}", file.path().display()))?;
    let named: Vec<_> = file.tensors().iter().map(|info| (info.name.clone(), info)).collect();
    let under = |prefix: &'static str| {
        named.iter().filter_map(move |(name, _)| Some((name.strip_prefix(prefix)?, name)))
    };
    let [first, second] = MOMENTS;
    let networks = [Network::Student.prefix(), Network::Teacher.prefix()];
    let state = networks.into_iter().flat_map(under).map(|(_, name)| leaf(name, name));
    let updates = iteration as i64 - first_update(file)?;
    let params: Vec<&str> = under(first).map(|(param, _)| param).collect();
    // The projection head's updates count from the first iteration that has contrast losses.
    let late =
        updates.min((iteration as i64).saturating_sub_unsigned(config.contrast.start)).max(0);
    let moments = params.iter().enumerate().map(|(index, param)| {
        let delayed = config.contrast.enabled && param.starts_with(PROJECTION);
        let moments = Node::dict([
            ("step", Node::Int(if delayed { late } else { updates })),
            ("exp_avg", Node::Tensor(format!("{first}{param}"))),
            ("exp_avg_sq", Node::Tensor(format!("{second}{param}"))),
        ]);
        (Node::Int(index as i64), moments)
    });
    let mut networks = vec![Network::Student.prefix()];
    networks.extend(identity.teacher.then_some(Network::Teacher.prefix()));
    networks.extend(config.feature_distance.enabled.then_some("imnet_model."));
    let groups = networks.iter().flat_map(|prefix| params.iter().map(move |p| (*prefix, *p)));
    let groups = groups.enumerate().map(|(index, (prefix, param))| {
        group(&config.optimizer, &format!("{prefix}{param}"), index)
    });
    let own = |prefix| Node::Dict(under(prefix).map(|(key, name)| leaf(key, name)).collect());
    let strings = file.strings().iter();
    let strings = strings.map(|(key, value)| (Node::text(key), Node::text(value))).collect();
    let optimizer = Node::dict([
        ("state", Node::Dict(moments.collect())),
        ("param_groups", Node::List(groups.collect())),
    ]);
    let mut kept = vec![
        (Node::text("strings"), Node::Dict(strings)),
        (Node::text("templates"), own("templates.")),
    ];
    // Some methods have more state, and a dump holds a batch as well.
    for (name, prefix) in [("contrast", "contrast."), ("batch", "batch.")] {
        if under(prefix).next().is_some() {
            kept.push((Node::text(name), own(prefix)));
        }
    }
    let tree = Node::dict([
        ("meta", Node::dict([("iter", Node::Int(iteration as i64)), ("epoch", Node::Int(0))])),
        ("state_dict", Node::Ordered(state.collect())),
        ("optimizer", optimizer),
        (OWN, Node::Dict(kept)),
    ]);
    Ok((named, Some(tree), BTreeMap::new()))
}

/// Creates the parameter group of one parameter; mmcv's optimizer constructor creates one for each.
fn group(config: &OptimizerConfig, name: &str, index: usize) -> Node {
    let (lr, decay) = config.multipliers(name);
    let betas = config.betas.map(Node::Float).to_vec();
    Node::dict([
        ("lr", Node::Float(config.lr * lr)),
        ("initial_lr", Node::Float(config.lr * lr)),
        ("betas", Node::Tuple(betas)),
        ("eps", Node::Float(config.eps)),
        ("weight_decay", Node::Float(config.weight_decay * decay)),
        ("amsgrad", Node::Bool(false)),
        ("params", Node::List(vec![Node::Int(index as i64)])),
    ])
}

/// Restores a run's checkpoint from the torch file that [`reference`] created.
fn run_again<'a>(file: &'a TensorFile, own: &Node) -> Result<Converted<'a>> {
    let student = Network::Student.prefix();
    let params: Vec<&str> = parameters(file, student).collect();
    let mut named = Vec::new();
    // The order in a run's checkpoint is networks, moments, templates.
    for info in file.tensors() {
        if info.name.starts_with(student) || info.name.starts_with(Network::Teacher.prefix()) {
            named.push((info.name.clone(), info));
        }
    }
    for (prefix, moment) in MOMENTS.into_iter().zip(["exp_avg", "exp_avg_sq"]) {
        for (index, param) in params.iter().enumerate() {
            let info = file.find(&format!("optimizer.state.{index}.{moment}"));
            named.extend(info.map(|info| (format!("{prefix}{param}"), info)));
        }
    }
    for info in file.tensors() {
        let template = info.name.strip_prefix(OWN).and_then(|rest| rest.strip_prefix('.'));
        named.extend(template.map(|name| (name.to_owned(), info)));
    }
    let mut strings = BTreeMap::new();
    if let Some(Node::Dict(items)) = own.get("strings") {
        for item in items {
            if let (Node::Text(key), Node::Text(value)) = item {
                strings.insert(key.clone(), value.clone());
            }
        }
    }
    Ok((named, None, strings))
}
