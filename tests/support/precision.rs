//! How far results may be off at lower precision, by how far PyTorch is on the same case.
//!
//! Which way each number is rounded is chance, and so is what the roundings of a run add up to.
//! benches/pytorch/precision.py draws it again and again, with PyTorch alone, and keeps the largest
//! and the middle error of every number over these runs. Two rules follow, without exceptions:
//!
//! * Every number is off by at most twice the largest of PyTorch's errors, or by what the case
//!   allows in single precision where that is more. What is not in the table is held to the latter.
//! * The middle one of a case's tensors, each measured by PyTorch's middle error, is off by at most a
//!   quarter more than that, or as far as the middle one of any of PyTorch's runs.
//!
//! The first lets pass what is as good as PyTorch, and what is worse by less than twice; against
//! the latter, where it is so throughout, stands the second. How often they would fail PyTorch is
//! counted by holding each of its runs to the others: the head of the table says of how many
//! numbers in a run of all cases, and the number of runs is such that it is less than one in all.

use std::collections::HashMap;

use serde_json::Value;
use udass_raw::device::Precision;

use super::cases::{Outcome, folder};
use super::compare::{Steps, Tolerance};

/// How much further off than the furthest of PyTorch's runs.
const FACTOR: f64 = 2.0;
/// How many times PyTorch's middle error the middle one of a case's tensors may be off, and what it
/// is called in the table.
const IN_THE_MIDDLE: (f64, &str) = (1.25, "in the middle");
/// The fewest tensors of a case whose middle one tells something.
const FEWEST: usize = 8;

/// PyTorch's errors on a number: of a tensor in l2, of a discrete one the share that differs, of an
/// update the share that went another way, of a scalar relative to it, of noise the largest.
#[derive(Clone, Copy)]
pub struct Error {
    pub largest: f64,
    pub middle: f64,
    /// Of a tensor that is stored whole the largest error of any element.
    pub element: Option<f64>,
}

/// PyTorch's errors on a case, by key.
#[derive(Default)]
pub struct Errors(HashMap<String, Error>);

impl Errors {
    /// Empty in single precision, and of a case that has no operands to round.
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

    /// How many times PyTorch's middle error the middle one of the tensors may be off.
    pub fn in_the_middle(&self) -> f64 {
        let (least, key) = IN_THE_MIDDLE;
        self.get(key).map_or(least, |error| error.largest.max(least))
    }
}

impl Error {
    /// What is allowed of a scalar.
    pub fn allowed(&self) -> f64 {
        FACTOR * self.largest
    }

    /// What is allowed of a tensor, and never less than `own`.
    pub fn allows(&self, own: &Tolerance) -> Tolerance {
        let allowed = self.allowed();
        match *own {
            // Of a part of a tensor PyTorch's largest error says nothing about the rest.
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

/// The middle one of how many times PyTorch's error each tensor is off; None of too few to tell.
pub fn middle(ratios: &mut [f64]) -> Option<f64> {
    ratios.sort_by(f64::total_cmp);
    (ratios.len() >= FEWEST).then(|| ratios[ratios.len() / 2])
}
