//! Compares a result with a stored tensor.
//!
//! Every check is written as `!(distance <= bound)`, so that NaN fails it.

// `!(a <= b)` is deliberate: unlike `a > b`, it is true for NaN.
#![allow(clippy::neg_cmp_op_on_partial_ord)]

use serde_json::Value;

use super::cases::{Entry, Outcome, Stats, Storage};

/// How close a result must come to a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Tolerance {
    /// No tolerance is stated: the tensor is an input.
    Input,
    /// Numerically equal.
    Exact,
    /// Bounds on the l2 distance relative to the stored tensor, and on each element. `steps` also
    /// requires that a share of the elements is within a number of learning rates.
    Close { rel_l2: Option<f64>, max_abs: f64, steps: Option<Steps> },
    /// Both sides are round-off around zero: no element may exceed this.
    Noise { max_abs: f64 },
    /// At least this share of the elements is equal.
    Agreement { share: f64 },
    /// No element is off by more than `max`, and at least this share is equal.
    Nearly { max: f64, share: f64 },
    /// NaN exactly where the stored tensor is NaN; elsewhere off by no more than this.
    OrNan { max_abs: f64 },
}

/// The AdamW update that produced the tensor under comparison.
#[derive(Clone, Debug)]
pub struct AdamStep {
    pub rate: f64,
    /// For every element, whether its gradient is within its own tolerance of zero. Adam's first
    /// step has the length of the learning rate in the gradient's direction, which is then
    /// arbitrary. This affects biases that no loss depends on (of keys before a softmax, of layers
    /// before a batch norm).
    pub unsettled: Vec<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    pub share: f64,
    pub rates: f64,
}

/// Relative error allowed for results that depend on how a ReLU's input near zero was rounded.
pub const FLIPPED: f64 = 2e-2;

impl Tolerance {
    /// Returns the relaxed tolerance for a gradient, or a result that follows from one, if
    /// single-precision rounding flipped the sign of a ReLU's input; `None` if it cannot be
    /// relaxed.
    pub fn flipped(&self) -> Option<Tolerance> {
        match *self {
            Tolerance::Close { rel_l2: Some(rel_l2), .. } => Some(Tolerance::Close {
                rel_l2: Some(rel_l2.max(FLIPPED)),
                max_abs: f64::INFINITY,
                steps: None,
            }),
            Tolerance::Close { rel_l2, max_abs, .. } => {
                Some(Tolerance::Close { rel_l2, max_abs, steps: None })
            }
            _ => None,
        }
    }

    /// Parses `tol` and `note` of a case. An unknown wording is an error, never a loose check.
    pub fn parse(tol: &Value, note: Option<&str>) -> Outcome<Tolerance> {
        let unknown = || format!("tol {tol} is not understood");
        match tol {
            Value::Null => Ok(Tolerance::Input),
            Value::String(text) => Self::parse_text(text).ok_or_else(unknown),
            Value::Object(map) => {
                let known = |k: &String| ["rel_l2", "max_abs", "note"].contains(&k.as_str());
                let max_abs = map.get("max_abs").and_then(Value::as_f64);
                let (Some(max_abs), true) = (max_abs, map.keys().all(known)) else {
                    return Err(unknown());
                };
                if note.is_some_and(|n| n.starts_with("mathematically zero")) {
                    return Ok(Tolerance::Noise { max_abs });
                }
                let steps = match map.get("note").and_then(Value::as_str) {
                    Some(text) if text.contains("require") => {
                        Some(Self::parse_steps(text).ok_or_else(unknown)?)
                    }
                    _ => None,
                };
                let rel_l2 = map.get("rel_l2").and_then(Value::as_f64);
                Ok(Tolerance::Close { rel_l2, max_abs, steps })
            }
            _ => Err(unknown()),
        }
    }

    fn parse_text(text: &str) -> Option<Tolerance> {
        if text == "exact" {
            return Some(Tolerance::Exact);
        }
        if let Some(rest) = text.strip_prefix("agreement >= ") {
            let share = rest.split(' ').next()?.parse().ok()?;
            return Some(Tolerance::Agreement { share });
        }
        if let Some(rest) = text.strip_prefix("max |diff| <= ") {
            let (max, share) = rest.split_once(", exact for >= ")?;
            let share: f64 = share.strip_suffix('%')?.parse().ok()?;
            return Some(Tolerance::Nearly { max: max.parse().ok()?, share: share / 100.0 });
        }
        let rest = text.strip_prefix("max |diff| ")?.strip_suffix(", NaN where NaN")?;
        Some(Tolerance::OrNan { max_abs: rest.parse().ok()? })
    }

    /// Parses "… require >= 98% of elements within 0.02*lr".
    fn parse_steps(text: &str) -> Option<Steps> {
        let (_, rest) = text.split_once("require >= ")?;
        let (share, rest) = rest.split_once("% of elements within ")?;
        let rates = rest.split_once("*lr")?.0.parse().ok()?;
        Some(Steps { share: share.parse::<f64>().ok()? / 100.0, rates })
    }
}

/// Compares the full tensor `got` with the stored part of it. Returns the largest fraction of a
/// bound that was used up (1 is the limit), or says what exceeded it.
///
/// If the tensor is not stored whole, the full tensor's statistics are compared too, each with the
/// largest difference that two tensors within the tolerance can have: |mean| and std differ by at
/// most ‖a−b‖₂/√n, l2 by ‖a−b‖₂, the sum of magnitudes by ‖a−b‖₁ ≤ √n·‖a−b‖₂, the largest magnitude
/// by max|a−b|. This check therefore never rejects a tensor that its tolerance accepts, and where
/// no element is stored it is the strictest test that statistics allow.
///
/// The sample of a partly stored tensor is measured against its own norm or its proportional share
/// of the full tensor's, whichever is larger: `rel_l2` refers to the full tensor, and a sample may
/// happen to miss its large elements.
///
/// `step` describes the update that produced the tensor, for tolerances in learning rates.
pub fn compare(
    entry: &Entry,
    stored: &[f64],
    got: &[f64],
    step: Option<&AdamStep>,
) -> Outcome<f64> {
    if got.len() != entry.len() {
        return Err(format!("{} numbers, not {} of {:?}", got.len(), entry.len(), entry.shape));
    }
    if stored.len() != entry.stored_len() {
        return Err(format!("{} numbers are stored, not {}", stored.len(), entry.stored_len()));
    }
    if !matches!(entry.tolerance, Tolerance::OrNan { .. }) {
        finite("stored", stored)?;
        finite("got", got)?;
    }
    let stride = match entry.storage {
        Storage::Whole => 1,
        Storage::Strided { stride } => stride,
        // Only the statistics are compared.
        Storage::StatsOnly => usize::MAX,
    };
    let mut used = Used(0.0);
    if entry.storage != Storage::StatsOnly {
        let picked: Vec<f64> = got.iter().copied().step_by(stride).collect();
        let share = (stored.len() as f64 / got.len().max(1) as f64).sqrt();
        let size = stats(stored).l2.max(entry.stats.map_or(0.0, |full| share * full.l2));
        let unsettled = step.map(|step| step.unsettled.iter().copied().step_by(stride).collect());
        let step = step.map(|step| AdamStep { unsettled: unsettled.unwrap_or_default(), ..*step });
        compare_elements(&entry.tolerance, stored, &picked, size, step.as_ref(), &mut used)?;
    }
    match (entry.storage, &entry.stats) {
        (Storage::Whole, _) => {}
        (_, Some(stats)) => compare_stats(&entry.tolerance, stats, got, &mut used)?,
        (_, None) => return Err("stats are missing".into()),
    }
    Ok(used.0)
}

/// The counterpart of [`Tolerance::flipped`] for scalars.
pub fn scalar_flipped(tol_rel: f64) -> f64 {
    tol_rel.max(FLIPPED)
}

/// Compares two numbers relative to the stored one; a stored 0 must be matched exactly.
pub fn compare_scalar(stored: f64, got: f64, tol_rel: f64) -> Outcome<f64> {
    finite("stored", &[stored])?;
    finite("got", &[got])?;
    let mut used = Used(0.0);
    used.check("relative error", (got - stored).abs(), tol_rel * stored.abs())
        .map_err(|e| format!("{got} instead of {stored}: {e}"))?;
    Ok(used.0)
}

fn finite(side: &str, values: &[f64]) -> Outcome {
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(format!("{side} holds {} at {i}", values[i])),
        None => Ok(()),
    }
}

/// The largest fraction of a bound used so far.
struct Used(f64);

impl Used {
    fn check(&mut self, what: &str, distance: f64, bound: f64) -> Outcome {
        if !(distance <= bound) {
            return Err(format!("{what} {distance:.3e} exceeds {bound:.3e}"));
        }
        if distance > 0.0 {
            self.0 = self.0.max(distance / bound);
        }
        Ok(())
    }
}

fn compare_elements(
    tolerance: &Tolerance,
    stored: &[f64],
    got: &[f64],
    size: f64,
    step: Option<&AdamStep>,
    used: &mut Used,
) -> Outcome {
    let pairs = || got.iter().zip(stored).map(|(a, b)| (*a, *b));
    let distances = || pairs().map(|(a, b)| (a - b).abs());
    let worst = || distances().fold(0.0, f64::max);
    let within = |bound: f64| distances().filter(|d| *d <= bound).count() as f64;
    let n = got.len() as f64;
    let mut at_least = |what: &str, equal: f64, share: f64| {
        if !(equal >= share * n) {
            return Err(format!("{what}: {:.4}% of {n} elements", 100.0 * equal / n));
        }
        if n > 0.0 && share < 1.0 {
            used.0 = used.0.max((1.0 - equal / n) / (1.0 - share));
        }
        Ok(())
    };
    match *tolerance {
        Tolerance::Input => Err("is an input: it has no tolerance".into()),
        Tolerance::Exact => at_least("equal", within(0.0), 1.0),
        Tolerance::Agreement { share } => at_least("equal", within(0.0), share),
        Tolerance::Nearly { max, share } => {
            at_least("equal", within(0.0), share)?;
            used.check("max |a-b|", worst(), max)
        }
        Tolerance::Noise { max_abs } => {
            used.check("max |a|", got.iter().fold(0.0, |m, a| a.abs().max(m)), max_abs)
        }
        Tolerance::OrNan { max_abs } => {
            if let Some(i) = pairs().position(|(a, b)| a.is_nan() != b.is_nan()) {
                return Err(format!("{} instead of {} at {i}", got[i], stored[i]));
            }
            let numbers = pairs().filter(|(_, b)| !b.is_nan());
            let far =
                |d: f64, (a, b): (f64, f64)| if (a - b).abs() <= d { d } else { (a - b).abs() };
            used.check("max |a-b|", numbers.fold(0.0, far), max_abs)
        }
        Tolerance::Close { rel_l2, max_abs, steps } => {
            if let Some(Steps { share, rates }) = steps {
                let step = step.ok_or("its tolerance counts in learning rates: none is known")?;
                let near = |(d, unsettled): &(f64, &bool)| **unsettled || *d <= rates * step.rate;
                let near = distances().zip(&step.unsettled).filter(near).count() as f64;
                at_least(&format!("within {rates} learning rates"), near, share)?;
            }
            used.check("max |a-b|", worst(), max_abs)?;
            if let Some(rel_l2) = rel_l2 {
                let distance = distances().map(|d| d * d).sum::<f64>().sqrt();
                used.check("l2 distance", distance, rel_l2 * size)
                    .map_err(|e| format!("{e} (rel_l2 {:.3e})", distance / size))?;
            }
            Ok(())
        }
    }
}

pub fn stats(values: &[f64]) -> Stats {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    Stats {
        mean,
        std: (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt(),
        l2: values.iter().map(|v| v * v).sum::<f64>().sqrt(),
        sum_abs: values.iter().map(|v| v.abs()).sum(),
        max_abs: values.iter().fold(0.0, |m, v| v.abs().max(m)),
    }
}

fn compare_stats(tolerance: &Tolerance, want: &Stats, got: &[f64], used: &mut Used) -> Outcome {
    let has = stats(got);
    let n = got.len() as f64;
    // The largest ‖a−b‖ in the 1-, 2- and maximum norm that the tolerance allows.
    let (one, two, max) = match *tolerance {
        Tolerance::Input => return Err("is an input: it has no tolerance".into()),
        // Both sides are round-off, so their statistics mean nothing; only the bound on `got` does.
        Tolerance::Noise { max_abs } => return used.check("max |a|", has.max_abs, max_abs),
        Tolerance::OrNan { .. } => return Err("statistics cannot hold NaN".into()),
        Tolerance::Exact => (0.0, 0.0, 0.0),
        Tolerance::Close { rel_l2, max_abs, .. } => {
            let spread = n.sqrt() * max_abs;
            let two = rel_l2.map_or(spread, |r| spread.min(r * want.l2));
            (n.sqrt() * two, two, max_abs)
        }
        Tolerance::Agreement { share } => {
            let (differ, by) = (((1.0 - share) * n).floor(), has.max_abs.max(want.max_abs));
            (differ * by, differ.sqrt() * by, by)
        }
        Tolerance::Nearly { max, share } => {
            let differ = ((1.0 - share) * n).floor();
            (differ * max, differ.sqrt() * max, max)
        }
    };
    // Two summation orders in f64 differ by this much, and equal tensors must pass.
    let round = 1e-9;
    let mut check = |what: &str, has: f64, want: f64, bound: f64, size: f64| {
        used.check(what, (has - want).abs(), bound + round * size)
            .map_err(|e| format!("{what} {has} instead of {want}: {e}"))
    };
    check("mean", has.mean, want.mean, two / n.sqrt(), want.sum_abs / n)?;
    check("std", has.std, want.std, two / n.sqrt(), want.l2 / n.sqrt())?;
    check("l2", has.l2, want.l2, two, want.l2)?;
    check("sum_abs", has.sum_abs, want.sum_abs, one, want.sum_abs)?;
    check("max_abs", has.max_abs, want.max_abs, max, want.max_abs)
}
