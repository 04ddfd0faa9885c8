//! The curves of several runs in one chart each; runs that differ only in their seed are one line.

use std::collections::{BTreeMap, BTreeSet};

use super::format::number;
use super::history::{Curve, Unit};
use super::run::{Member, Run};
use super::spread::Spread;
use crate::data::classes::Classes;

/// Most points of a line. Iterations between two of them are averaged.
const POINTS: u64 = 150;

/// The lines of all runs for one curve.
#[derive(Debug)]
pub struct Chart {
    /// What it shows.
    pub curve: Curve,
    /// A line for each run that has the curve.
    pub lines: Vec<Line>,
}

/// The curve of a run.
#[derive(Debug)]
pub struct Line {
    /// The run's name.
    pub run: String,
    /// The run's number, by which its color is chosen.
    pub color: usize,
    /// Pairs of the number of iterations done and the value.
    pub points: Vec<(u64, Spread)>,
}

impl Chart {
    /// Returns the charts of all curves that the runs have. Each run comes with its classes.
    pub fn all(runs: &[(&Run, &Classes)]) -> Vec<Chart> {
        let mut charts: BTreeMap<Curve, Vec<Line>> = BTreeMap::new();
        let members = || runs.iter().flat_map(|(run, _)| &run.members);
        let training = members().flat_map(|member| &member.history.training);
        let last = |points: &Vec<(u64, f64)>| points.last().map_or(0, |(step, _)| *step);
        let last = training.clone().map(|(_, points)| last(points)).max().unwrap_or(0);
        let curves: BTreeSet<&Curve> = training.map(|(curve, _)| curve).collect();
        for (run, classes) in runs {
            let mut add = |curve: Curve, points: Vec<(u64, Spread)>| {
                if !points.is_empty() {
                    let line = Line { run: run.name.clone(), color: run.color, points };
                    charts.entry(curve).or_default().push(line);
                }
            };
            for curve in &curves {
                add((*curve).clone(), averaged(&run.members, curve, last));
            }
            add(
                Curve::MeanIou,
                evaluated(&run.members, |iou| Spread::of(iou.iter().copied()).mean),
            );
            for class in 0..classes.len() {
                let of_class = |iou: &[f64]| iou.get(class).copied().unwrap_or(f64::NAN);
                let curve = Curve::ClassIou(class, classes.name(class));
                add(curve, evaluated(&run.members, of_class));
            }
        }
        charts.into_iter().map(|(curve, lines)| Chart { curve, lines }).collect()
    }

    /// Formats a value of the chart.
    pub fn value(&self, value: f64) -> String {
        match self.curve.unit() {
            Unit::Percent => number(value),
            Unit::Plain => significant(value),
            Unit::Bytes => significant(value / f64::from(1 << 30)),
        }
    }

    /// Returns the title with the unit.
    pub fn title(&self) -> String {
        let title = self.curve.title();
        match self.curve.unit() {
            Unit::Percent => format!("{title}, %"),
            Unit::Plain => title,
            Unit::Bytes => format!("{title}, GiB"),
        }
    }
}

/// Returns a curve of training over the iterations that all members have: the mean of each stretch
/// of iterations, and from it the spread over the members. `last` is the last iteration of all runs.
fn averaged(members: &[Member], curve: &Curve, last: u64) -> Vec<(u64, Spread)> {
    let stretch = last.div_ceil(POINTS).max(1);
    let means = members.iter().map(|member| {
        let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for &(step, value) in member.history.training.get(curve).into_iter().flatten() {
            let (sum, count) =
                sums.entry(step.div_ceil(stretch).saturating_mul(stretch)).or_default();
            *sum += value;
            *count += 1.0;
        }
        sums.into_iter().map(|(step, (sum, count))| (step.min(last), sum / count)).collect()
    });
    common(means)
}

/// Returns a number of each evaluation that all members have.
fn evaluated(members: &[Member], of: impl Fn(&[f64]) -> f64) -> Vec<(u64, Spread)> {
    let values = members.iter().map(|member| {
        let all = member.history.evaluations.iter();
        all.map(|at| (at.iteration, of(&at.iou))).filter(|(_, value)| !value.is_nan()).collect()
    });
    common(values)
}

/// Returns the spread at the steps that all members have.
fn common(members: impl Iterator<Item = BTreeMap<u64, f64>>) -> Vec<(u64, Spread)> {
    let members: Vec<BTreeMap<u64, f64>> = members.collect();
    let Some(first) = members.first() else { return Vec::new() };
    let at = |step: &u64| -> Option<Vec<f64>> {
        members.iter().map(|member| member.get(step).copied()).collect()
    };
    first.keys().filter_map(|step| Some((*step, Spread::of(at(step)?)))).collect()
}

/// Formats a number with three significant digits.
fn significant(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = 2 - size.log10().floor() as i32;
    format!("{value:.*}", digits.max(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits() {
        let shown = [0.0, 12345.6, 123.4, 12.34, 1.234, 0.01234, 6e-5, -2.5].map(significant);
        assert_eq!(shown, ["0", "12346", "123", "12.3", "1.23", "0.0123", "6.00e-5", "-2.50"]);
    }

    #[test]
    fn a_line_averages_stretches_and_ends_where_a_seed_ends() {
        let member = |values: &[f64]| {
            let mut member = Member::default();
            let steps = (1..).zip(values.iter().copied()).collect();
            member.history.training.insert(Curve::Loss, steps);
            member
        };
        // Stretches of two iterations: 151 of them in all.
        let long: Vec<f64> = (0..302).map(f64::from).collect();
        let points = averaged(&[member(&long)], &Curve::Loss, 302);
        assert_eq!(points.len(), 101);
        // The deviation of a single run is not a number, which equals nothing.
        let mean = |place: usize| (points[place].0, points[place].1.mean);
        assert_eq!((mean(0), mean(100)), ((3, 1.0), (302, 300.5)));
        let points = averaged(&[member(&[1.0, 2.0, 5.0]), member(&[3.0, 2.0])], &Curve::Loss, 3);
        assert_eq!(points, [(1, Spread::of([1.0, 3.0])), (2, Spread::of([2.0, 2.0]))]);
    }
}
