//! The names of AdamW's moments in checkpoints.

use std::collections::HashMap;

use super::identity::{self, MAX_ITERATION};
use super::pth::Node;
use super::tensor_file::TensorFile;
use crate::{Error, Result};

/// Prefixes of the first and second moments in this program's checkpoints.
pub const MOMENTS: [&str; 2] = ["optimizer.exp_avg.", "optimizer.exp_avg_sq."];

/// Returns a network's parameters in the order in which a PyTorch optimizer numbers them.
pub fn parameters<'a>(file: &'a TensorFile, prefix: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    const BUFFERS: [&str; 3] = ["running_mean", "running_var", "num_batches_tracked"];
    (file.tensors().iter())
        .filter_map(move |info| info.name.strip_prefix(prefix))
        .filter(|name| !BUFFERS.iter().any(|buffer| name.ends_with(buffer)))
}

/// Returns, for each parameter, the names of its two moments in the file: this program's, or
/// PyTorch's numbered ones. Returns `None` if the file has no moments.
pub fn names(file: &TensorFile, prefix: &str) -> Option<HashMap<String, [String; 2]>> {
    let numbered = file.find("optimizer.state.0.exp_avg").is_some();
    let own = file.tensors().iter().any(|info| info.name.starts_with(MOMENTS[0]));
    if !numbered && !own {
        return None;
    }
    let named = parameters(file, prefix).enumerate().map(|(index, param)| {
        let names = if own {
            MOMENTS.map(|moment| format!("{moment}{param}"))
        } else {
            ["exp_avg", "exp_avg_sq"].map(|m| format!("optimizer.state.{index}.{m}"))
        };
        (param.to_owned(), names)
    });
    Some(named.collect())
}

/// Returns the iteration of the first update that the moments in a checkpoint hold. A checkpoint of
/// the reference counts the updates of each parameter.
///
/// # Errors
/// [`Error::Weights`] if the file's metadata is malformed, or the number is not one that a run can
/// have.
pub fn first_update(file: &TensorFile) -> Result<i64> {
    let next = identity::iteration(file)?.map_or(0, |next| next as i64);
    let first = match file.metadata("optimizer.first") {
        Some(text) => text.parse().map_err(|_| {
            let problem = format!("its optimizer.first, `{text}`, is not a number");
            Error::weights(file.path(), problem)
        })?,
        None => updates(file)?.map_or(0, |updates| next.saturating_sub(updates)),
    };
    // The moments hold no update after the checkpoint; they may be older than the run.
    if first > next || first.unsigned_abs() > MAX_ITERATION {
        let problem = format!("its optimizer.first is {first}, but its iteration is {next}");
        return Err(Error::weights(file.path(), problem));
    }
    Ok(first)
}

/// Returns the number of updates that PyTorch's moments hold: `step` of the first parameter, which
/// is a number or, since PyTorch 1.12, a tensor. Returns `None` if the file does not say.
fn updates(file: &TensorFile) -> Result<Option<i64>> {
    const STEP: &str = "optimizer.state.0.step";
    if file.find(STEP).is_some() {
        return Ok(file.numbers(STEP)?.first().map(|&step| step as i64));
    }
    let tree = file.tree()?;
    let first = tree.as_ref().and_then(|tree| tree.get("optimizer")?.get("state")?.first());
    Ok(match first.and_then(|first| first.get("step")) {
        Some(Node::Int(step)) => Some(*step),
        _ => None,
    })
}
