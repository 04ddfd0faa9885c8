//! What a run's log tells over its iterations, as curves.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::run::train::log::pass_of;

/// What a curve shows, in the order in which they are drawn.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Curve {
    /// The mean IoU over all classes.
    MeanIou,
    /// The sum of all losses.
    Loss,
    /// The losses of source images.
    SourceLoss,
    /// The losses of mixed images.
    MixedLoss,
    /// The losses of masked images.
    MaskedLoss,
    /// The feature distance.
    FeatureLoss,
    /// The share of pixels with a confident pseudo-label.
    Confidence,
    /// Images per second.
    Rate,
    /// The learning rate.
    LearningRate,
    /// The peak memory on the device.
    Memory,
    /// The IoU of a class, by its number and name.
    ClassIou(usize, String),
}

/// How the values of a curve are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// As a number.
    Plain,
    /// In percent; the values are.
    Percent,
    /// In GiB; the values are bytes.
    Bytes,
}

impl Curve {
    /// Returns the curve's title.
    pub fn title(&self) -> String {
        match self {
            Curve::MeanIou => "mIoU",
            Curve::Loss => "loss",
            Curve::SourceLoss => "loss of source images",
            Curve::MixedLoss => "loss of mixed images",
            Curve::MaskedLoss => "loss of masked images",
            Curve::FeatureLoss => "feature distance",
            Curve::Confidence => "confident pseudo-labels",
            Curve::Rate => "images per second",
            Curve::LearningRate => "learning rate",
            Curve::Memory => "peak device memory",
            Curve::ClassIou(_, name) => return name.clone(),
        }
        .into()
    }

    /// Returns how its values are shown.
    pub fn unit(&self) -> Unit {
        match self {
            Curve::MeanIou | Curve::Confidence | Curve::ClassIou(..) => Unit::Percent,
            Curve::Memory => Unit::Bytes,
            _ => Unit::Plain,
        }
    }
}

/// The evaluation after some iterations.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// Number of iterations done.
    pub iteration: u64,
    /// The IoU of each class in percent; NaN for one that does not occur.
    pub iou: Vec<f64>,
}

/// The numbers of a run over its iterations.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The curves of training: pairs of the number of iterations done and the value.
    pub training: BTreeMap<Curve, Vec<(u64, f64)>>,
    /// The evaluations, the first one first.
    pub evaluations: Vec<Evaluated>,
    /// Time of all iterations, without evaluations and checkpoints, in seconds.
    pub seconds: f64,
    /// Where and by what the run was trained last: labels and texts.
    pub machine: Vec<(&'static str, String)>,
}

impl History {
    /// Collects what the lines of a log tell.
    pub fn of(lines: &[Value]) -> History {
        let mut history = History::default();
        for line in lines {
            let step = line["iteration"].as_u64().unwrap_or(0);
            match line["event"].as_str() {
                Some("iteration") => history.iteration(step.saturating_add(1), line),
                Some("evaluation") => history.evaluations.extend(evaluated(step, line)),
                Some("start") => history.set("version", &line["version"]),
                Some("machine") => {
                    for key in MACHINE {
                        history.set(key, &line[key]);
                    }
                }
                _ => {}
            }
        }
        history
    }

    fn set(&mut self, key: &'static str, value: &Value) {
        let Some(text) = value.as_str() else { return };
        self.machine.retain(|(known, _)| *known != key);
        self.machine.push((key, text.to_owned()));
    }

    fn iteration(&mut self, step: u64, line: &Value) {
        self.seconds += line["seconds"].as_f64().unwrap_or(0.0);
        let mut add = |curve: Curve, value: f64| {
            self.training.entry(curve).or_default().push((step, value));
        };
        let mut passes: BTreeMap<Curve, f64> = BTreeMap::new();
        for (name, loss) in line["losses"].as_object().into_iter().flatten() {
            let pass = match pass_of(name) {
                "mix" => Curve::MixedLoss,
                "mask" => Curve::MaskedLoss,
                "feat" => Curve::FeatureLoss,
                _ => Curve::SourceLoss,
            };
            // A sum with a value that is not finite is none.
            *passes.entry(pass).or_default() += loss.as_f64().unwrap_or(f64::NAN);
        }
        let total: f64 = passes.values().sum();
        let all = (!passes.is_empty()).then_some((Curve::Loss, total));
        let parts = passes.into_iter().filter(|(_, part)| *part != total);
        for (curve, value) in all.into_iter().chain(parts).filter(|(_, value)| value.is_finite()) {
            add(curve, value);
        }
        let numbers = [
            (Curve::Confidence, "pseudo_label_weight", 100.0),
            (Curve::Rate, "images_per_second", 1.0),
            (Curve::LearningRate, "lr", 1.0),
            (Curve::Memory, "peak_device_bytes", 1.0),
        ];
        for (curve, key, factor) in numbers {
            line[key].as_f64().into_iter().for_each(|value| add(curve.clone(), factor * value));
        }
    }
}

/// Labels of the line `machine` of a log.
const MACHINE: [&str; 3] = ["commit", "device", "processor"];

/// Reads an evaluation; `None` if it says nothing of the classes.
pub(super) fn evaluated(iteration: u64, line: &Value) -> Option<Evaluated> {
    let percent = |share: &Value| share.as_f64().map_or(f64::NAN, |share| 100.0 * share);
    let iou = line["IoU"].as_array()?.iter().map(percent).collect();
    Some(Evaluated { iteration, iou })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_log_is_read_as_curves() {
        let losses = |source: f64, mixed: f64| json!({"decode.loss_seg": source, "mix.decode.loss_seg": mixed});
        let lines = [
            json!({"event": "start", "iteration": 0, "version": "0.1.0"}),
            json!({"event": "machine", "iteration": 0, "device": "host", "processor": "a"}),
            json!({"event": "iteration", "iteration": 0, "losses": losses(2.0, 1.0), "lr": 0.1,
                "images_per_second": 4.0, "seconds": 0.5, "pseudo_label_weight": 0.25}),
            json!({"event": "iteration", "iteration": 1, "losses": {"decode.loss_seg": 1.5}, "seconds": 0.25}),
            json!({"event": "evaluation", "iteration": 2, "IoU": [0.5, null]}),
            json!({"event": "machine", "iteration": 2, "device": "cuda"}),
            json!({"event": "iteration", "iteration": 2, "losses": {"decode.loss_seg": null}}),
        ];
        let history = History::of(&lines);
        assert_eq!(history.training[&Curve::Loss], [(1, 3.0), (2, 1.5)]);
        assert_eq!(history.training[&Curve::SourceLoss], [(1, 2.0)]);
        assert_eq!(history.training[&Curve::MixedLoss], [(1, 1.0)]);
        assert_eq!(history.training[&Curve::Confidence], [(1, 25.0)]);
        assert_eq!(history.seconds, 0.75);
        let [evaluation] = &history.evaluations[..] else { panic!("{history:?}") };
        assert_eq!((evaluation.iteration, evaluation.iou[0]), (2, 50.0));
        assert!(evaluation.iou[1].is_nan());
        let machine: Vec<(&str, &str)> =
            history.machine.iter().map(|(key, text)| (*key, text.as_str())).collect();
        assert_eq!(machine, [("version", "0.1.0"), ("processor", "a"), ("device", "cuda")]);
    }
}
