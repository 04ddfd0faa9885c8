//! The results of one case: which stored numbers were compared, and what was wrong.

use std::collections::{HashMap, HashSet};
use std::fmt;

use udass_raw::device::Precision;

use super::cases::{Case, Entry, Outcome, Scalar, Storage};
use super::compare::{AdamStep, Tolerance, compare, compare_scalar, scalar_flipped};
use super::precision::{Errors, middle};

/// Number of failures that are listed by name; the rest are counted.
const NAMED: usize = 12;

pub struct Report<'a> {
    case: &'a Case,
    stored: HashMap<String, Vec<f64>>,
    /// Tensors compared or used as inputs, and scalars compared.
    seen: HashSet<String>,
    failures: Vec<Failure>,
    compared: usize,
    /// The largest fraction of a tolerance used, and what used it.
    worst: (f64, String),
    /// PyTorch's errors at the precision of this run, if it is lower.
    errors: Errors,
    /// Each tensor's error relative to PyTorch's median error.
    ratios: Vec<f64>,
}

/// A single failed check.
pub struct Failure {
    pub what: String,
    pub problem: String,
    /// Whether a flipped ReLU explains it ([`Tolerance::flipped`]): the result depends on gradients
    /// and is within the relaxed tolerance.
    pub flip: bool,
}

impl<'a> Report<'a> {
    pub fn new(case: &'a Case) -> Outcome<Report<'a>> {
        Self::at(case, Precision::F32)
    }

    /// Creates the report of a run at `precision`.
    pub fn at(case: &'a Case, precision: Precision) -> Outcome<Report<'a>> {
        let (stored, errors) = (case.load()?, Errors::of(&case.name, precision)?);
        let (seen, failures, worst) = (HashSet::new(), Vec::new(), (0.0, String::new()));
        let (compared, ratios) = (0, Vec::new());
        Ok(Report { case, stored, seen, failures, compared, worst, errors, ratios })
    }

    pub fn case(&self) -> &'a Case {
        self.case
    }

    /// Returns a stored tensor that the case is run on.
    pub fn input(&mut self, key: &str) -> Outcome<Vec<f32>> {
        Ok(self.input_wide(key)?.iter().map(|&v| v as f32).collect())
    }

    /// Returns a stored label map, mask or image that the case is run on.
    pub fn input_bytes(&mut self, key: &str) -> Outcome<Vec<u8>> {
        Ok(self.input_wide(key)?.iter().map(|&v| v as u8).collect())
    }

    /// Returns a stored result as the input of later stages; it must still be compared.
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
        self.compare_with(key, shape, got, None);
    }

    /// Compares a parameter after AdamW's first step. `gradient` is the gradient of that step,
    /// which the case stores under `grad/`.
    pub fn compare_step(&mut self, prefix: &str, name: &str, got: &[f32], gradient: &[f32]) {
        let step = self.step(name, gradient);
        let (key, shape) = (format!("{prefix}{name}"), &self.case.entry(&format!("grad/{name}")));
        let shape = shape.as_ref().map_or(Vec::new(), |entry| entry.shape.clone());
        self.compare_with(&key, &shape, got, step.as_ref());
    }

    fn step(&self, name: &str, gradient: &[f32]) -> Option<AdamStep> {
        let groups = self.case.extra.get("param_groups_lr_wd")?;
        let rate = groups.get(format!("model.{name}"))?.get(0)?.as_f64()?;
        let bound = match self.case.entry(&format!("grad/{name}")).ok()?.tolerance {
            Tolerance::Close { max_abs, .. } | Tolerance::Noise { max_abs } => max_abs,
            _ => 0.0,
        };
        // PyTorch's share of elements that went the other way counts all of them.
        let measured = self.errors.get(&format!("param_after/{name}")).is_some();
        let unsettled = |&g: &f32| !measured && f64::from(g).abs() <= bound;
        let unsettled = gradient.iter().map(unsettled).collect();
        Some(AdamStep { rate, unsettled })
    }

    fn compare_with<T: Copy + Into<f64>>(
        &mut self,
        key: &str,
        shape: &[usize],
        got: &[T],
        step: Option<&AdamStep>,
    ) {
        let error = self.errors.get(key);
        let got: Vec<f64> = got.iter().map(|&v| v.into()).collect();
        let stored = self.stored.get(key).map_or(&[][..], Vec::as_slice);
        let (verdict, flip) = match self.case.entry(key) {
            Err(problem) => (Err(problem), false),
            Ok(entry) if entry.shape != shape => {
                (Err(format!("has shape {shape:?}, not {:?}", entry.shape)), false)
            }
            Ok(entry) => {
                let tolerance =
                    error.map_or(entry.tolerance.clone(), |e| e.allows(&entry.tolerance));
                let entry = &Entry { tolerance, ..entry.clone() };
                let verdict = compare(entry, stored, &got, step);
                if let Some(middle) = error.map(|e| e.middle).filter(|&middle| middle > 0.0) {
                    let off = off_in_l2(entry, stored, &got);
                    self.ratios.extend(off.map(|off| off / middle));
                }
                let loose = entry.tolerance.flipped().filter(|_| verdict.is_err());
                let flip = loose.is_some_and(|tolerance| {
                    let entry = Entry { tolerance, ..entry.clone() };
                    compare(&entry, stored, &got, None).is_ok()
                });
                (verdict, flip && follows_gradients(key))
            }
        };
        self.note(key, verdict, flip);
    }

    /// Compares a result with a stored scalar.
    pub fn scalar(&mut self, key: &str, got: f64) {
        let allowed = self.errors.get(key).map_or(0.0, |error| error.allowed());
        let stored = self.case.scalars.iter().find(|(k, _)| k == key).map(|(_, s)| s);
        let (verdict, flip) = match stored {
            None => (Err("the case stores no such scalar".into()), false),
            Some(Scalar { tol_rel: None, .. }) => (Err("has no tolerance".into()), false),
            Some(scalar @ Scalar { value, tol_rel: Some(tol), .. }) => {
                let tol = &tol.max(allowed).max(scalar.twice_its_error());
                let flip = compare_scalar(*value, got, scalar_flipped(*tol)).is_ok();
                (compare_scalar(*value, got, *tol), flip && follows_gradients(key))
            }
        };
        self.note(key, verdict, flip);
    }

    /// Compares a result with a number from the config.
    pub fn number(&mut self, what: &str, stored: f64, got: f64, tol_rel: f64) {
        self.note(what, compare_scalar(stored, got, tol_rel), false);
    }

    /// Checks a requirement that the case states in words.
    pub fn require(&mut self, what: &str, holds: bool) {
        self.note(what, if holds { Ok(0.0) } else { Err("does not hold".into()) }, false);
    }

    fn note(&mut self, what: &str, verdict: Outcome<f64>, flip: bool) {
        self.seen.insert(what.into());
        self.compared += 1;
        match verdict {
            Ok(used) if used >= self.worst.0 => self.worst = (used, what.into()),
            Ok(_) => {}
            Err(problem) => self.fail(what, problem, flip),
        }
    }

    fn fail(&mut self, what: &str, problem: String, flip: bool) {
        self.failures.push(Failure { what: what.into(), problem, flip });
    }

    /// Closes the report: every stored number must have been compared. Only the gradient norms
    /// accumulated between the backward passes of an iteration may be missing, because passes may
    /// be batched.
    pub fn close(mut self) -> Verdict {
        let running = |key: &str| {
            key.rsplit('/').nth(1).is_some_and(|part| part.starts_with("backward"))
                && key.ends_with("total_grad_norm_so_far")
        };
        let tensors = self.case.tensors.iter().map(|(key, _)| key);
        let expected = self.case.scalars.iter().filter(|(_, s)| s.tol_rel.is_some());
        let scalars = expected.map(|(key, _)| key).filter(|key| !running(key));
        let missed: Vec<&String> =
            tensors.chain(scalars).filter(|k| !self.seen.contains(*k)).collect();
        for key in missed {
            self.fail(key, "stored, but not compared".into(), false);
        }
        let middle = middle(&mut self.ratios);
        let most = self.errors.in_the_middle();
        if let Some(times) = middle.filter(|times| times.is_nan() || *times > most) {
            let problem =
                format!("in the middle {times:.2} times as far off, {most:.2} are allowed");
            self.fail("PyTorch's errors", problem, false);
        }
        if self.compared == 0 {
            self.fail(&self.case.name, "nothing was compared".into(), false);
        }
        let Report { failures, compared, worst, .. } = self;
        Verdict { failures, compared, worst, middle }
    }

    /// Returns the keys of stored tensors that start with `prefix` and have a tolerance, with the
    /// prefix removed.
    pub fn keys(&self, prefix: &str) -> Vec<&'a str> {
        let tensors = self.case.tensors.iter();
        let results = tensors.filter(|(_, e)| e.tolerance != Tolerance::Input);
        results.filter_map(|(key, _)| key.strip_prefix(prefix)).collect()
    }
}

/// Returns the l2 distance of a result relative to the stored tensor, if its tolerance is in l2.
fn off_in_l2(entry: &Entry, stored: &[f64], got: &[f64]) -> Option<f64> {
    const FAR: f64 = 1e6;
    let Tolerance::Close { rel_l2: Some(_), .. } = entry.tolerance else { return None };
    let tolerance = Tolerance::Close { rel_l2: Some(FAR), max_abs: f64::INFINITY, steps: None };
    let used = compare(&Entry { tolerance, ..entry.clone() }, stored, got, None);
    used.ok().map(|used| FAR * used)
}

/// Returns whether a result comes after a backward pass: gradients, what an update makes of them,
/// and everything in a chain except its first iteration.
fn follows_gradients(key: &str) -> bool {
    let of_chain = key.strip_prefix("it").or(key.strip_prefix('t'));
    let of_chain = of_chain.and_then(|rest| rest.split_once('/'));
    let of_chain = of_chain.filter(|(t, _)| t.parse::<usize>().is_ok());
    let (later, key) = match of_chain {
        Some((t, rest)) => (t.parse::<usize>().is_ok_and(|t| t > 0), rest),
        None => (false, key),
    };
    let parts = ["grad", "param_after/", "ema_next/", "student_param"];
    later || parts.iter().any(|part| key.starts_with(part)) || key.contains("grad_norm")
}

/// The verdict of a closed report.
pub struct Verdict {
    pub failures: Vec<Failure>,
    compared: usize,
    worst: (f64, String),
    /// The median of the tensors' errors relative to PyTorch's.
    middle: Option<f64>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, key) = &self.worst;
        match self.failures.len() {
            0 => {
                write!(f, "{} compared, closest {:.0}% ({key})", self.compared, 100.0 * used)?;
                match self.middle {
                    Some(times) => write!(f, ", in the middle {times:.2} of PyTorch's error"),
                    None => Ok(()),
                }
            }
            n => {
                write!(f, "{n} of {} failed", self.compared.max(n))?;
                for Failure { what, problem, .. } in self.failures.iter().take(NAMED) {
                    write!(f, "\n      {what}: {problem}")?;
                }
                let rest = n.saturating_sub(NAMED);
                if rest > 0 { write!(f, "\n      … and {rest} more") } else { Ok(()) }
            }
        }
    }
}
