//! Cases of SePiCo: unit vectors, class statistics, contrast losses, and the class-balanced crop.

use serde_json::json;
use udass_raw::config::Config;
use udass_raw::nn::Segmentor;
use udass_raw::ops::{
    self, Bank, ClassMoments, ClassStatistics, ContrastSettings, Contrasted, class_sums,
};
use udass_raw::tape::Tape;
use udass_raw::tensor::DType;

use super::recorded::{Input, Op, Set};
use super::{Bed, List};

/// Adds the cases if the network has a projection head.
pub fn add(list: &mut List, config: &Config) {
    let channels = config.network.projection;
    if channels == 0 {
        return;
    }
    let network = Segmentor::new(&config.network).unwrap();
    let (batch, classes, crop) = (config.data.batch, config.network.classes, config.data.crop);
    // The features have the size of the logits.
    let sizes = Sizes {
        batch,
        side: crop / network.stride(),
        channels,
        classes,
        memory: config.contrast.memory,
    };
    let shape = [batch, sizes.side, sizes.side, channels];
    let json = json!({"batch": batch, "side": sizes.side, "channels": channels});
    let apply = |tape: &Tape, s: &Set| vec![ops::l2_normalize(tape, &s.x[0]).unwrap()];
    list.op("l2_normalize", json, Op::new(vec![Input::Operand(shape.to_vec())], vec![], apply));
    sizes.statistics(list);
    for kind in ["prototypes", "distributions", "bank"] {
        sizes.contrast(list, kind);
    }
    let json = json!({"batch": batch, "side": crop});
    list.plain("ignore_unweighted", json, move |bed: &Bed| {
        let make = |slot| {
            (
                bed.labels([batch, crop, crop], classes, slot),
                bed.numbers(&[batch, crop, crop], slot),
            )
        };
        bed.rotating(make, |device, (label, weight)| {
            ops::ignore_unweighted(device, label, weight).unwrap()
        })
    });
    let ([width, height], many) = (config.target.resize, config.class_balanced_crop.boxes);
    let json =
        json!({"batch": batch, "height": height, "width": width, "crop": crop, "boxes": many});
    list.plain("class_balanced_crop", json, move |bed: &Bed| {
        let place = |i: usize| {
            let [y, x] = [i * 7 % (height - crop + 1), i * 131 % (width - crop + 1)];
            [y, y + crop, x, x + crop].map(|edge| edge as i32)
        };
        let boxes: Vec<[i32; 4]> = (0..batch * many).map(place).collect();
        let boxes = bed.device.upload(&[batch, many, 4], boxes.as_flattened()).unwrap();
        bed.rotating(
            |slot| bed.labels([batch, height, width], classes, slot),
            move |device, label| ops::most_balanced(device, label, &boxes, 0.75).unwrap(),
        )
    });
    list.plain("keep_counts", json!({"classes": classes}), move |bed: &Bed| {
        let failed = bed.device.zeros(&[1], DType::I32).unwrap();
        let make = |_| {
            let counts = || bed.device.zeros(&[classes], DType::I64).unwrap();
            (counts(), counts())
        };
        bed.rotating(make, move |device, (from, to)| {
            ops::commit(device, from, to, &failed).unwrap()
        })
    });
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    /// Cells along a side of the features.
    side: usize,
    channels: usize,
    classes: usize,
    memory: usize,
}

impl Sizes {
    /// Takes the features of a batch into the statistics and the bank.
    fn statistics(self, list: &mut List) {
        let Sizes { batch, side, channels, classes, memory } = self;
        let shape = json!({"batch": batch, "side": side, "channels": channels, "memory": memory});
        list.plain("class_statistics", shape, move |bed: &Bed| {
            let make = |slot| {
                let features = bed.numbers(&[batch, side, side, channels], slot);
                let labels = bed.labels([batch, side, side], classes, slot);
                let statistics = ClassStatistics::new(&bed.device, classes, channels).unwrap();
                let bank = Bank::new(&bed.device, classes, memory, channels).unwrap();
                (features, labels, statistics, bank)
            };
            bed.rotating(make, move |device, (features, labels, statistics, bank)| {
                let sums = class_sums(device, features, labels, classes).unwrap();
                let moments = ClassMoments::new(device, features, labels, sums).unwrap();
                statistics.merge(device, &moments).unwrap();
                bank.push(device, &moments).unwrap();
            })
        });
    }

    /// A contrast loss of one kind, with a full bank.
    fn contrast(self, list: &mut List, kind: &'static str) {
        let Sizes { batch, side, channels, classes, memory } = self;
        let shape = json!({
            "batch": batch, "side": side, "channels": channels, "kind": kind, "memory": memory,
        });
        let more = move |bed: &Bed, slot| {
            let pushed = vec![memory as i64; classes];
            vec![
                bed.labels([batch, side, side], classes, slot),
                bed.numbers(&[classes, channels], slot + 1),
                bed.numbers(&[classes, channels], slot + 2),
                bed.device.zeros(&[classes], DType::I64).unwrap(),
                bed.numbers(&[classes, memory, channels], slot + 3),
                bed.device.upload(&[classes], &pushed).unwrap(),
            ]
        };
        let apply = move |tape: &Tape, s: &Set| {
            let [labels, mean, variance, amount, vectors, pushed] = &s.more[..] else {
                panic!("{} tensors", s.more.len())
            };
            let [mean, variance, amount] = [mean, variance, amount].map(|t| t.clone());
            let statistics = ClassStatistics { mean, variance, amount };
            let bank = Bank { vectors: vectors.clone(), pushed: pushed.clone() };
            let with = match kind {
                "prototypes" => Contrasted::Prototypes,
                "distributions" => Contrasted::Distributions,
                _ => Contrasted::Bank(&bank),
            };
            let settings = ContrastSettings { temperature: 100.0, regularizer: 1.0 };
            let features = &s.x[0];
            let sums = class_sums(tape.device(), &features.detach(), labels, classes).unwrap();
            let loss = ops::contrast(tape, features, labels, &sums, &statistics, with, settings);
            vec![loss.unwrap().value]
        };
        let inputs = vec![Input::Real(vec![batch, side, side, channels])];
        list.op("contrast", shape, Op::new(inputs, vec![], apply).with(more));
    }
}
