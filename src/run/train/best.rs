//! The best evaluation of a run, whose checkpoint is kept as `checkpoints/best.safetensors`.

use std::path::Path;

use super::log;
use crate::Result;
use crate::run::eval::report::Report;

/// The best score of a run so far.
#[derive(Debug)]
pub struct Best {
    score: Option<f64>,
    synthia: bool,
}

impl Best {
    /// Reads the best score from the log of a run; there is none without a log. Runs whose source
    /// is SYNTHIA are compared by the mean over its 16 classes.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if a line of the log is not JSON;
    /// [`Error::Io`](crate::Error::Io).
    pub fn of_log(path: &Path, synthia: bool) -> Result<Best> {
        let mut best = Best { score: None, synthia };
        let lines = if path.exists() { log::read(path)? } else { Vec::new() };
        for line in lines.iter().filter(|line| line["event"] == "evaluation") {
            best.improves(line["mIoU"].as_f64(), line["mIoU16"].as_f64());
        }
        Ok(best)
    }

    /// Records an evaluation and returns whether no earlier one was better.
    pub fn is_improved_by(&mut self, report: &Report) -> bool {
        let of_16 = report.synthia().find(|(classes, _)| *classes == 16);
        self.improves(Some(report.confusion.mean_iou()), of_16.map(|(_, mean)| mean))
    }

    /// An evaluation without any labeled class has no score.
    fn improves(&mut self, mean: Option<f64>, of_16: Option<f64>) -> bool {
        let score = of_16.filter(|_| self.synthia).or(mean).filter(|score| !score.is_nan());
        let better = score.is_some_and(|score| self.score.is_none_or(|best| score >= best));
        if better {
            self.score = score;
        }
        better
    }
}
