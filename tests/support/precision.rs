//! How far results may be off at lower precision, by how far PyTorch is at that precision on the same
//! case (benches/pytorch/precision.py measured it): each at most twice as far, or as the case's own
//! tolerance allows where that is more; and half of a case's tensors no more than a quarter further. The
//! former leaves room for chance, the latter little for being worse throughout: roundings that are
//! no worse than PyTorch's, but others, end at 0.9 to 1.1.

use std::collections::HashMap;

use serde_json::Value;
use udass_raw::device::Precision;

use super::cases::{Outcome, folder};
use super::compare::{Steps, Tolerance};

/// How much further off than PyTorch.
const FACTOR: f64 = 2.0;
/// Of many tensors one in so many may be further off by this factor more: PyTorch's errors are those
/// of two runs, and chance makes some of them small.
pub const CHANCE: (usize, f64) = (100, 1.5);
/// How many times PyTorch's error the middle one of a case's tensors may be off.
pub const IN_THE_MIDDLE: f64 = 1.25;
/// The fewest tensors of a case whose middle one tells something.
const FEWEST: usize = 8;

/// PyTorch's errors on one case: of tensors rel_l2 and max_abs (and after a step of AdamW the share
/// that went another way), of discrete ones the share that differs, of scalars the relative error.
pub struct Errors {
    by_key: HashMap<String, Vec<f64>>,
    /// What is usual among the first errors of a group: a small one may be luck. Of tensors the case's
    /// median, of losses and norms, single numbers and few, the largest of all cases.
    usual: HashMap<String, f64>,
}

const NUMBERS: &str = "loss";

/// Single numbers, or what stands before the first slash; results by themselves are a group together.
fn group(key: &str) -> &str {
    match key.contains("loss") || key.contains("grad_norm") {
        true => NUMBERS,
        false => key.split_once('/').map_or("", |(group, _)| group),
    }
}

/// None in single precision, and of a case that has no operands to round.
pub fn errors(case: &str, precision: Precision) -> Outcome<Option<Errors>> {
    let name = match precision {
        Precision::F32 => return Ok(None),
        Precision::Tf32 => "tf32",
        Precision::Bf16 => "bf16",
    };
    let path = folder().join("precision.json");
    let at = |e: String| format!("{}: {e}", path.display());
    let text = std::fs::read(&path).map_err(|e| at(e.to_string()))?;
    let table: Value = serde_json::from_slice(&text).map_err(|e| at(e.to_string()))?;
    let mut cases: HashMap<String, HashMap<String, Vec<f64>>> =
        serde_json::from_value(table[name].clone()).map_err(|e| at(e.to_string()))?;
    let numbers = cases.values().flatten().filter(|(key, _)| group(key) == NUMBERS);
    let largest = numbers.map(|(_, error)| error[0]).fold(0.0, f64::max);
    let Some(by_key) = cases.remove(case) else { return Ok(None) };
    let mut groups: HashMap<String, Vec<f64>> = HashMap::new();
    for (key, error) in by_key.iter().filter(|(_, error)| error[0] > 0.0) {
        groups.entry(group(key).into()).or_default().push(error[0]);
    }
    let usual = groups.into_iter().map(|(group, mut all)| {
        all.sort_by(f64::total_cmp);
        let usual = if group == NUMBERS { largest } else { all[all.len() / 2] };
        (group, usual)
    });
    Ok(Some(Errors { by_key, usual: usual.collect() }))
}

impl Errors {
    /// PyTorch's error of a tensor in l2, where there is one.
    pub fn rel_l2(&self, key: &str) -> Option<f64> {
        self.by_key.get(key)?.first().copied().filter(|&error| error > 0.0)
    }

    /// What is allowed of a number; None of one that PyTorch's run does not tell.
    pub fn allowed(&self, key: &str) -> Option<Vec<f64>> {
        let own = self.by_key.get(key)?;
        let usual = self.usual.get(group(key)).copied().unwrap_or(0.0);
        let lucky = if own[0] > 0.0 { (usual / own[0]).max(1.0) } else { 1.0 };
        Some(own.iter().map(|error| FACTOR * lucky * error).collect())
    }
}

/// The middle one of how many times PyTorch's error each tensor is off; None of too few to tell.
pub fn median(ratios: &mut [f64]) -> Option<f64> {
    ratios.sort_by(f64::total_cmp);
    (ratios.len() >= FEWEST).then(|| ratios[ratios.len() / 2])
}

impl Tolerance {
    /// No tighter than this, and wide enough for what is allowed. What is told in l2 is held to that
    /// alone: PyTorch's largest errors are known of stored elements, and these may be few.
    pub fn widened(&self, allowed: &[f64]) -> Tolerance {
        let of = |i: usize| allowed.get(i).copied().unwrap_or(0.0);
        match *self {
            Tolerance::Close { rel_l2: Some(rel_l2), steps, .. } if !allowed.is_empty() => {
                Tolerance::Close {
                    rel_l2: Some(rel_l2.max(of(0))),
                    max_abs: f64::INFINITY,
                    steps: steps.map(|s| Steps { share: s.share.min(1.0 - of(2)), ..s }),
                }
            }
            Tolerance::Close { rel_l2, max_abs, steps } => {
                Tolerance::Close { rel_l2, max_abs: max_abs.max(of(1)), steps }
            }
            Tolerance::Noise { max_abs } => Tolerance::Noise { max_abs: max_abs.max(of(1)) },
            Tolerance::Exact if of(0) > 0.0 => Tolerance::Agreement { share: 1.0 - of(0) },
            Tolerance::Agreement { share } => {
                Tolerance::Agreement { share: share.min(1.0 - of(0)) }
            }
            ref other => other.clone(),
        }
    }
}
