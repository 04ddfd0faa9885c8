//! The names of AdamW's moments in checkpoints.

use std::collections::HashMap;

use super::tensor_file::TensorFile;

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
