//! Mean and standard deviation over the runs that differ only in their seed.

use super::format::number;

/// A value of one or several runs. NaN stands for none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the sample, with n − 1; NaN for a single run.
    pub deviation: f64,
    /// Number of runs that have a value.
    pub runs: usize,
}

impl Spread {
    /// Returns mean and standard deviation of those values that are not NaN.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
        let runs = values.len();
        let mean = values.iter().sum::<f64>() / runs as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = match runs {
            0 | 1 => f64::NAN,
            _ => (squares / (runs - 1) as f64).sqrt(),
        };
        Spread { mean, deviation, runs }
    }

    /// Formats the value by `format`, as in `58.2 ± 0.4`; a single one as `58.2`.
    pub fn shown(self, format: impl Fn(f64) -> String) -> String {
        match self.deviation.is_nan() {
            true => format(self.mean),
            false => format!("{} ± {}", format(self.mean), format(self.deviation)),
        }
    }

    /// Formats a value in percent.
    pub fn percent(self) -> String {
        self.shown(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_that_of_a_sample() {
        // Of statistics.stdev in Python.
        let three = Spread::of([50.0, 53.0, f64::NAN, 52.0]);
        assert_eq!((three.mean, three.runs), (155.0 / 3.0, 3));
        assert!((three.deviation - 1.5275252316519468).abs() < 1e-12, "{three:?}");
        assert_eq!(three.percent(), "51.7 ± 1.5");
        assert_eq!(Spread::of([50.04]).percent(), "50.0");
        assert_eq!(Spread::of([]).percent(), "–");
        assert_eq!(Spread::of([1.0, 1.0]).percent(), "1.0 ± 0.0");
    }
}
