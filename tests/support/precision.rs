//! How far results may be off at lower precision: at most twice as far as PyTorch is at that
//! precision on the same case (benches/pytorch/precision.py measured it), or the case's own tolerance
//! where that is more.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use udass_raw::device::Precision;

use super::cases::Outcome;
use super::compare::{Steps, Tolerance};

/// How much further off than PyTorch.
const FACTOR: f64 = 2.0;

/// PyTorch's errors on one case: of tensors rel_l2 and max_abs (and after a step of AdamW the share
/// that went another way), of discrete ones the share that differs, of scalars the relative error.
pub struct Errors {
    by_key: HashMap<String, Vec<f64>>,
    /// First errors' medians by group: a single small one may be luck.
    medians: HashMap<String, f64>,
}

/// Keys before their first slash; results by themselves are a group together.
fn group(key: &str) -> &str {
    key.split_once('/').map_or("", |(group, _)| group)
}

/// None in single precision, and of a case that has no operands to round.
pub fn errors(case: &str, precision: Precision) -> Outcome<Option<Errors>> {
    let name = match precision {
        Precision::F32 => return Ok(None),
        Precision::Tf32 => "tf32",
        Precision::Bf16 => "bf16",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/precision.json");
    let at = |e: String| format!("{}: {e}", path.display());
    let text = std::fs::read(&path).map_err(|e| at(e.to_string()))?;
    let table: Value = serde_json::from_slice(&text).map_err(|e| at(e.to_string()))?;
    let Some(keys) = table[name].get(case) else { return Ok(None) };
    let by_key: HashMap<String, Vec<f64>> =
        serde_json::from_value(keys.clone()).map_err(|e| at(e.to_string()))?;
    let mut groups: HashMap<String, Vec<f64>> = HashMap::new();
    for (key, error) in by_key.iter().filter(|(_, error)| error[0] > 0.0) {
        groups.entry(group(key).into()).or_default().push(error[0]);
    }
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let medians = groups.into_iter().map(|(group, all)| (group, median(all))).collect();
    Ok(Some(Errors { by_key, medians }))
}

impl Errors {
    /// What is allowed of a number; None of one that PyTorch's run does not tell.
    pub fn allowed(&self, key: &str) -> Option<Vec<f64>> {
        let own = self.by_key.get(key)?;
        let usual = self.medians.get(group(key)).copied().unwrap_or(0.0);
        let lucky = if own[0] > 0.0 { (usual / own[0]).max(1.0) } else { 1.0 };
        Some(own.iter().map(|error| FACTOR * lucky * error).collect())
    }
}

impl Tolerance {
    /// No tighter than this, and wide enough for what is allowed.
    pub fn widened(&self, allowed: &[f64]) -> Tolerance {
        let of = |i: usize| allowed.get(i).copied().unwrap_or(0.0);
        match *self {
            Tolerance::Close { rel_l2, max_abs, steps } => Tolerance::Close {
                rel_l2: rel_l2.map(|own| own.max(of(0))),
                max_abs: max_abs.max(of(1)),
                steps: steps.map(|s| Steps { share: s.share.min(1.0 - of(2)), ..s }),
            },
            Tolerance::Noise { max_abs } => Tolerance::Noise { max_abs: max_abs.max(of(1)) },
            Tolerance::Exact if of(0) > 0.0 => Tolerance::Agreement { share: 1.0 - of(0) },
            Tolerance::Agreement { share } => {
                Tolerance::Agreement { share: share.min(1.0 - of(0)) }
            }
            ref other => other.clone(),
        }
    }
}
