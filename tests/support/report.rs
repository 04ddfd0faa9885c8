//! What became of one case: which stored numbers were compared, and what was wrong.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::cases::{Case, Outcome, Storage};
use super::compare::{Tolerance, compare, compare_scalar};

/// Failures named one by one; the rest are counted.
const NAMED: usize = 12;

pub struct Report<'a> {
    case: &'a Case,
    stored: HashMap<String, Vec<f64>>,
    /// Tensors compared or used as inputs, and scalars compared.
    seen: HashSet<String>,
    failures: Vec<String>,
    compared: usize,
    /// Largest share of a tolerance used, and by what.
    worst: (f64, String),
}

impl<'a> Report<'a> {
    pub fn new(case: &'a Case) -> Outcome<Report<'a>> {
        let stored = case.load()?;
        let (seen, failures, worst) = (HashSet::new(), Vec::new(), (0.0, String::new()));
        Ok(Report { case, stored, seen, failures, compared: 0, worst })
    }

    pub fn case(&self) -> &'a Case {
        self.case
    }

    /// A stored tensor that the case is run on.
    pub fn input(&mut self, key: &str) -> Outcome<Vec<f32>> {
        Ok(self.input_wide(key)?.iter().map(|&v| v as f32).collect())
    }

    /// A stored label map, mask or picture that the case is run on.
    pub fn input_bytes(&mut self, key: &str) -> Outcome<Vec<u8>> {
        Ok(self.input_wide(key)?.iter().map(|&v| v as u8).collect())
    }

    /// A stored result, to feed later stages with; it is still to be compared.
    pub fn recorded(&self, key: &str) -> Outcome<Vec<f32>> {
        let stored = self.stored.get(key).ok_or_else(|| format!("{key} is not stored"))?;
        match self.case.entry(key)?.storage {
            Storage::Whole => Ok(stored.iter().map(|&v| v as f32).collect()),
            _ => Err(format!("{key} is not stored whole")),
        }
    }

    fn input_wide(&mut self, key: &str) -> Outcome<&[f64]> {
        if self.case.entry(key)?.storage != Storage::Whole {
            return Err(format!("{key} is not stored whole and cannot be an input"));
        }
        self.seen.insert(key.into());
        self.stored.get(key).map(Vec::as_slice).ok_or_else(|| format!("{key} is not stored"))
    }

    /// Compares a result, given whole and in the reference's layout, with the stored tensor.
    pub fn compare<T: Copy + Into<f64>>(&mut self, key: &str, shape: &[usize], got: &[T]) {
        let verdict = self.verdict(key, shape, got);
        self.note(key, verdict);
    }

    fn verdict<T: Copy + Into<f64>>(&self, key: &str, shape: &[usize], got: &[T]) -> Outcome<f64> {
        let entry = self.case.entry(key)?;
        if entry.shape != shape {
            return Err(format!("has shape {shape:?}, not {:?}", entry.shape));
        }
        let got: Vec<f64> = got.iter().map(|&v| v.into()).collect();
        let stored = self.stored.get(key).map_or(&[][..], Vec::as_slice);
        compare(entry, stored, &got, self.rate_of(key))
    }

    /// Learning rate of the parameter that `key` ends in, where the case states it.
    fn rate_of(&self, key: &str) -> Option<f64> {
        let name = key.split_once('/')?.1;
        let groups = self.case.extra.get("param_groups_lr_wd")?;
        groups.get(format!("model.{name}"))?.get(0)?.as_f64()
    }

    /// Compares a result with a stored scalar.
    pub fn scalar(&mut self, key: &str, got: f64) {
        let stored = self.case.scalars.iter().find(|(k, _)| k == key).map(|(_, s)| s);
        let verdict = match stored {
            None => Err("the case stores no such scalar".into()),
            Some(s) => match s.tol_rel {
                None => Err("has no tolerance".into()),
                Some(tol) => compare_scalar(s.value, got, tol),
            },
        };
        self.note(key, verdict);
    }

    /// Compares a result with a number that the config holds.
    pub fn number(&mut self, what: &str, stored: f64, got: f64, tol_rel: f64) {
        let verdict = compare_scalar(stored, got, tol_rel);
        self.note(what, verdict);
    }

    /// Requires what the case says in words.
    pub fn require(&mut self, what: &str, holds: bool) {
        let verdict = if holds { Ok(0.0) } else { Err("does not hold".into()) };
        self.note(what, verdict);
    }

    fn note(&mut self, what: &str, verdict: Outcome<f64>) {
        self.seen.insert(what.into());
        self.compared += 1;
        match verdict {
            Ok(used) if used >= self.worst.0 => self.worst = (used, what.into()),
            Ok(_) => {}
            Err(problem) => self.failures.push(format!("{what}: {problem}")),
        }
    }

    /// Every stored number must have been compared; the gradient norms accumulated between the
    /// backward passes of an iteration alone may be left out, for passes may be run as one.
    pub fn close(mut self) -> Verdict {
        let running = |key: &str| {
            key.rsplit('/').nth(1).is_some_and(|part| part.starts_with("backward"))
                && key.ends_with("total_grad_norm_so_far")
        };
        let tensors = self.case.tensors.iter().map(|(key, _)| key);
        let expected = self.case.scalars.iter().filter(|(_, s)| s.tol_rel.is_some());
        let scalars = expected.map(|(key, _)| key).filter(|key| !running(key));
        let missed: Vec<_> = tensors.chain(scalars).filter(|k| !self.seen.contains(*k)).collect();
        for key in missed {
            self.failures.push(format!("{key}: stored, but not compared"));
        }
        if self.compared == 0 {
            self.failures.push("nothing was compared".into());
        }
        Verdict { failures: self.failures, compared: self.compared, worst: self.worst }
    }

    /// Stored tensors whose key starts with `prefix`, without it, that have a tolerance.
    pub fn keys(&self, prefix: &str) -> Vec<&'a str> {
        let tensors = self.case.tensors.iter();
        let results = tensors.filter(|(_, e)| e.tolerance != Tolerance::Input);
        results.filter_map(|(key, _)| key.strip_prefix(prefix)).collect()
    }
}

/// A closed report.
pub struct Verdict {
    pub failures: Vec<String>,
    compared: usize,
    worst: (f64, String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, key) = &self.worst;
        match self.failures.len() {
            0 => write!(f, "{} compared, closest {:.0}% ({key})", self.compared, 100.0 * used),
            n => {
                write!(f, "{n} of {} failed", self.compared.max(n))?;
                self.failures
                    .iter()
                    .take(NAMED)
                    .try_for_each(|line| write!(f, "\n      {line}"))?;
                let rest = n.saturating_sub(NAMED);
                if rest > 0 { write!(f, "\n      … and {rest} more") } else { Ok(()) }
            }
        }
    }
}
