//! Error bounds at lower precision, derived from PyTorch's errors on the same case.
//!
//! The rounding of each number is effectively random, and so is the accumulated error of a run.
//! benches/pytorch/precision.py repeats PyTorch's runs with different roundings, and keeps the
//! largest and the median error of every number over these runs. Two rules follow, without
//! exceptions:
//!
//! * Every number is off by at most twice PyTorch's largest error, or by what the case allows in
//!   single precision if that is more. Numbers that are not in the table are held to the latter.
//! * The median over a case's tensors of the error relative to PyTorch's median error is at most
//!   1.25, or the highest that any of PyTorch's own runs reaches.
//!
//! The first rule passes anything as good as PyTorch, and anything worse by less than a factor of
//! two; the second rejects results that are consistently worse. To estimate how often PyTorch
//! itself would fail, each of its runs is checked against the others: the head of the table gives
//! the number of failures per run of all cases, and the number of runs is chosen such that it is
//! less than one.

use std::collections::HashMap;

use serde_json::Value;
use udass_raw::device::Precision;

use super::cases::{Outcome, folder};
use super::compare::{Steps, Tolerance};

/// How far off a result may be, as a multiple of PyTorch's largest error.
const FACTOR: f64 = 2.0;
/// The allowed median over a case's tensors of the error relative to PyTorch's median error, and
/// its key in the table.
const IN_THE_MIDDLE: (f64, &str) = (1.25, "in the middle");
/// The fewest tensors in a case for which the median is meaningful.
const FEWEST: usize = 8;

/// PyTorch's errors on a number: for a tensor the relative l2 error, for a discrete one the share
/// of elements that differ, for an update the share that went the other way, for a scalar the
/// relative error, for noise the largest magnitude.
#[derive(Clone, Copy)]
pub struct Error {
    pub largest: f64,
    pub middle: f64,
    /// For a tensor that is stored whole, the largest error of any element.
    pub element: Option<f64>,
}

/// PyTorch's errors on a case, by key.
#[derive(Default)]
pub struct Errors(HashMap<String, Error>);

impl Errors {
    /// Loads the errors. Empty in single precision, and for a case without operands to round.
    pub fn of(case: &str, precision: Precision) -> Outcome<Errors> {
        let name = match precision {
            Precision::F32 => return Ok(Errors::default()),
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        };
        let path = folder().join("precision.json");
        let at = |e: String| format!("{}: {e}", path.display());
        let text = std::fs::read(&path).map_err(|e| at(e.to_string()))?;
        let mut table: Value = serde_json::from_slice(&text).map_err(|e| at(e.to_string()))?;
        let rows = match table[name][case].take() {
            Value::Null => return Ok(Errors::default()),
            rows => serde_json::from_value::<HashMap<String, Vec<f64>>>(rows),
        };
        let mut errors = HashMap::new();
        for (key, row) in rows.map_err(|e| at(e.to_string()))? {
            let &[largest, middle, ref element @ ..] = row.as_slice() else {
                return Err(at(format!("{case} {key} lacks numbers")));
            };
            errors.insert(key, Error { largest, middle, element: element.first().copied() });
        }
        Ok(Errors(errors))
    }

    pub fn get(&self, key: &str) -> Option<Error> {
        self.0.get(key).copied()
    }

    /// The allowed median over the tensors of the error relative to PyTorch's median error.
    pub fn in_the_middle(&self) -> f64 {
        let (least, key) = IN_THE_MIDDLE;
        self.get(key).map_or(least, |error| error.largest.max(least))
    }
}

impl Error {
    /// The allowed error of a scalar.
    pub fn allowed(&self) -> f64 {
        FACTOR * self.largest
    }

    /// The tolerance for a tensor, never stricter than `own`.
    pub fn allows(&self, own: &Tolerance) -> Tolerance {
        let allowed = self.allowed();
        match *own {
            // For a partly stored tensor, PyTorch's largest error says nothing about the rest.
            Tolerance::Close { rel_l2: Some(rel_l2), max_abs, steps } => Tolerance::Close {
                rel_l2: Some(rel_l2.max(allowed)),
                max_abs: self.element.map_or(f64::INFINITY, |error| max_abs.max(FACTOR * error)),
                steps,
            },
            Tolerance::Close { rel_l2, max_abs, steps: Some(steps) } => {
                let share = steps.share.min(1.0 - allowed);
                Tolerance::Close { rel_l2, max_abs, steps: Some(Steps { share, ..steps }) }
            }
            Tolerance::Close { rel_l2, max_abs, steps } => {
                Tolerance::Close { rel_l2, max_abs: max_abs.max(allowed), steps }
            }
            Tolerance::Noise { max_abs } => Tolerance::Noise { max_abs: max_abs.max(allowed) },
            Tolerance::Exact if allowed > 0.0 => Tolerance::Agreement { share: 1.0 - allowed },
            Tolerance::Agreement { share } => {
                Tolerance::Agreement { share: share.min(1.0 - allowed) }
            }
            ref other => other.clone(),
        }
    }
}

/// Returns the median of the tensors' errors relative to PyTorch's; `None` if there are too few.
pub fn middle(ratios: &mut [f64]) -> Option<f64> {
    ratios.sort_by(f64::total_cmp);
    (ratios.len() >= FEWEST).then(|| ratios[ratios.len() / 2])
}
