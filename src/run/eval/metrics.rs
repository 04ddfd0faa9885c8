//! The confusion matrix and the metrics derived from it.

use crate::data::classes::{self, IGNORE};
use crate::error::{Error, Result};

/// Pixel counts by label and prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// K,K: the row is the label, the column the prediction.
    counts: Vec<u64>,
}

impl Confusion {
    /// Creates an empty matrix.
    pub fn new(classes: usize) -> Self {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Creates a matrix from counts made on a device: K,K with the label as row and the prediction
    /// as column.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not `classes`² counts.
    pub fn from_counts(classes: usize, counts: Vec<u64>) -> Result<Self> {
        if counts.len() != classes * classes {
            let problem = format!("{} counts for {classes} classes", counts.len());
            return Err(Error::shape("confusion matrix", problem));
        }
        Ok(Confusion { classes, counts })
    }

    /// Counts the pixels of one image, except those labeled [`IGNORE`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the maps differ in length or hold an id that is not a class. Nothing is
    /// counted then.
    pub fn add(&mut self, prediction: &[u8], label: &[u8]) -> Result<()> {
        let op = "confusion matrix";
        if prediction.len() != label.len() {
            let (p, l) = (prediction.len(), label.len());
            return Err(Error::shape(op, format!("{p} predicted pixels but {l} labeled ones")));
        }
        let pairs = || prediction.iter().zip(label).filter(|(_, label)| **label != IGNORE);
        let k = self.classes;
        if let Some((p, l)) = pairs().find(|(p, l)| **p as usize >= k || **l as usize >= k) {
            let problem = if *l as usize >= k {
                format!("label id {l} is neither a class (0 to {}) nor {IGNORE}", k - 1)
            } else {
                format!("predicted id {p} is not a class (0 to {})", k - 1)
            };
            return Err(Error::shape(op, problem));
        }
        for (p, l) in pairs() {
            self.counts[*l as usize * k + *p as usize] += 1;
        }
        Ok(())
    }

    /// Adds the counts of another matrix.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers of classes differ.
    pub fn merge(&mut self, other: &Confusion) -> Result<()> {
        if self.classes != other.classes {
            let problem = format!("{} classes against {}", self.classes, other.classes);
            return Err(Error::shape("confusion matrix", problem));
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        Ok(())
    }

    /// Returns the number of classes, K.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the counts, K,K: the row is the label, the column the prediction.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns the number of labeled pixels.
    pub fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns, for each of the K classes, the pixels where prediction and label agree.
    pub fn intersections(&self) -> Vec<u64> {
        (0..self.classes).map(|c| self.counts[c * self.classes + c]).collect()
    }

    /// Returns, for each of the K classes, the pixels labeled with the class.
    pub fn labeled(&self) -> Vec<u64> {
        self.counts.chunks(self.classes.max(1)).map(|row| row.iter().sum()).collect()
    }

    /// Returns, for each of the K classes, the labeled pixels predicted as the class.
    pub fn predicted(&self) -> Vec<u64> {
        let column = |c: usize| self.counts.iter().skip(c).step_by(self.classes).sum();
        (0..self.classes).map(column).collect()
    }

    /// Returns, for each of the K classes, the pixels where prediction or label is the class.
    pub fn unions(&self) -> Vec<u64> {
        let (label, predicted) = (self.labeled(), self.predicted());
        let both = self.intersections();
        (0..self.classes).map(|c| label[c] + predicted[c] - both[c]).collect()
    }

    /// Returns the K intersections over union; NaN for a class in neither prediction nor label.
    pub fn iou(&self) -> Vec<f64> {
        ratios(&self.intersections(), &self.unions())
    }

    /// Returns the share of correct pixels among those labeled with each of the K classes; NaN for
    /// a class without labels.
    pub fn accuracy(&self) -> Vec<f64> {
        ratios(&self.intersections(), &self.labeled())
    }

    /// Returns the share of correct pixels among all labeled ones (aAcc); NaN if there are none.
    pub fn all_accuracy(&self) -> f64 {
        self.intersections().iter().sum::<u64>() as f64 / self.pixels() as f64
    }

    /// Returns the mean IoU over the classes that occur.
    pub fn mean_iou(&self) -> f64 {
        nan_mean(self.iou())
    }

    /// Returns the mean IoU over those of the given classes that occur. Ids beyond K are skipped.
    pub fn mean_iou_of(&self, classes: &[usize]) -> f64 {
        let iou = self.iou();
        nan_mean(classes.iter().filter_map(|&class| iou.get(class).copied()))
    }

    /// Returns the mean IoU over the 16 classes that SYNTHIA shares with Cityscapes.
    pub fn mean_iou_16(&self) -> f64 {
        self.mean_iou_of(&classes::SYNTHIA_16)
    }

    /// Returns the mean IoU over the 13 of these classes that remain without wall, fence and pole.
    pub fn mean_iou_13(&self) -> f64 {
        self.mean_iou_of(&classes::SYNTHIA_13)
    }

    /// Returns the mean accuracy over the classes that have labels.
    pub fn mean_accuracy(&self) -> f64 {
        nan_mean(self.accuracy())
    }
}

fn ratios(over: &[u64], under: &[u64]) -> Vec<f64> {
    over.iter().zip(under).map(|(&a, &b)| a as f64 / b as f64).collect()
}

/// Returns the mean of the values that are not NaN; NaN if there are none.
pub fn nan_mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0u32);
    for value in values.into_iter().filter(|value| !value.is_nan()) {
        sum += value;
        count += 1;
    }
    sum / f64::from(count)
}

/// Converts a ratio to percent with two decimals, rounding halves to even, as published results are
/// rounded.
pub fn percent(share: f64) -> f64 {
    (share * 100.0 * 100.0).round_ties_even() / 100.0
}
