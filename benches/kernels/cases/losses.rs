//! Cases of everything after the logits: HRDA's fusion and windows, losses, pseudo-labels and
//! evaluation.

use serde_json::json;
use udass_raw::config::Config;
use udass_raw::nn::Segmentor;
use udass_raw::ops::{self, Confidence, Confusion, DetailBox, Windows};
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

use super::recorded::{Input, Op, Set};
use super::{Bed, List};

use Input::{Operand, Real};

pub fn add(list: &mut List, config: &Config) {
    let network = Segmentor::new(&config.network).unwrap();
    let stride = network.stride();
    let (batch, crop) = (config.data.batch, config.data.crop);
    let (detail, classes) = (config.network.hrda.detail_crop, config.network.classes);
    let scales = Scales { batch, crop, detail, stride, classes };
    scales.crops(list);
    scales.windows(list);
    scales.fusion(list);
    scales.cross_entropy(list, crop / stride, crop);
    scales.cross_entropy(list, detail / stride, detail);
    scales.pseudo_labels(list);
    scales.evaluation(list);
    // The feature distance uses the last level of the context crop.
    let level = if stride == 4 { 32 } else { 8 };
    let things = config.feature_distance.classes.clone();
    let features = [batch, crop / 2 / level, crop / 2 / level, network.backbone().widths()[3]];
    scales.feature_distance(list, features, things, config.feature_distance.min_share as f64);
}

#[derive(Clone, Copy)]
struct Scales {
    batch: usize,
    crop: usize,
    detail: usize,
    /// Image pixels per cell of the logits.
    stride: usize,
    classes: usize,
}

impl Scales {
    /// Returns y1, y2, x1, x2 of the detail crop.
    fn place(self) -> [i32; 4] {
        let (y, x, side) = (self.crop as i32 / 4, self.crop as i32 / 8, self.detail as i32);
        [y, y + side, x, x + side]
    }

    /// Crops of an image (3 channels) and of its labels (bytes, 1 channel).
    fn crops(self, list: &mut List) {
        let Scales { batch, crop, detail, .. } = self;
        for (name, channels) in [("crop", 3), ("crop_labels", 1)] {
            let shape = json!({"batch": batch, "side": crop, "channels": channels, "to": detail});
            list.plain(name, shape, move |bed: &Bed| {
                let place = bed.device.upload(&[4], &self.place()).unwrap();
                let make = |slot| match channels {
                    1 => bed.labels([batch, crop, crop], self.classes, slot),
                    _ => bed.numbers(&[batch, crop, crop, channels], slot),
                };
                bed.rotating(make, move |device, x| {
                    ops::crop(device, x, &place, (detail, detail), 1).unwrap()
                })
            });
        }
    }

    /// The teacher's detail windows, which slide over the image in steps of half a window.
    fn windows(self, list: &mut List) {
        let Scales { batch, crop, detail, stride, classes } = self;
        let of = move |bed: &Bed| {
            let (side, step) = ((detail, detail), (detail / 2, detail / 2));
            Windows::new(&bed.device, (crop, crop), side, step).unwrap()
        };
        let shape = json!({"batch": batch, "side": crop, "channels": 3, "window": detail});
        list.plain("window_crops", shape, move |bed: &Bed| {
            let windows = of(bed);
            let make = |slot| bed.numbers(&[batch, crop, crop, 3], slot);
            bed.rotating(make, move |device, x| windows.crops(device, x).unwrap())
        });
        let (side, window) = (crop / stride, detail / stride);
        let shape = json!({"batch": batch, "side": side, "channels": classes, "window": window});
        list.plain("window_average", shape, move |bed: &Bed| {
            let windows = of(bed);
            let n = windows.boxes().len() * batch;
            let make = |slot| bed.numbers(&[n, window, window, classes], slot);
            bed.rotating(make, move |device, x| windows.average(device, x, stride).unwrap())
        });
    }

    /// Fusion with a single detail crop (student) and with detail everywhere (teacher).
    fn fusion(self, list: &mut List) {
        let Scales { batch, crop, detail, stride, classes } = self;
        let side = crop / stride;
        for within in [detail / stride, side] {
            let boxed = within < side;
            let shape = json!({"batch": batch, "side": side, "classes": classes, "detail": within});
            let [context, fine] = [side / 2, within].map(|n| Real(vec![batch, n, n, classes]));
            let apply = move |tape: &Tape, s: &Set| {
                let place = boxed.then(|| DetailBox { pixels: s.more[0].clone(), stride });
                let [low, high, attention] = [&s.x[0], &s.x[1], &s.x[2]];
                let fused = ops::hrda_fuse(tape, low, high, attention, 2, place.as_ref()).unwrap();
                vec![fused.logits]
            };
            let more = move |bed: &Bed, _| vec![bed.device.upload(&[4], &self.place()).unwrap()];
            let op = Op::new(vec![context.clone(), fine, context], vec![], apply).with(more);
            match boxed {
                true => list.op("hrda_fuse", shape, op),
                false => list.forward("hrda_fuse", shape, op),
            }
        }
    }

    fn cross_entropy(self, list: &mut List, side: usize, to: usize) {
        let Scales { batch, classes, .. } = self;
        let shape = json!({"batch": batch, "side": side, "classes": classes, "to": to});
        let apply = |tape: &Tape, s: &Set| {
            let [label, weight] = [&s.more[0], &s.more[1]];
            vec![ops::cross_entropy(tape, &s.x[0], label, Some(weight)).unwrap().value]
        };
        let more = move |bed: &Bed, slot| {
            let whole = [batch, to, to];
            vec![bed.labels(whole, classes, slot), bed.numbers(&whole, slot + 1)]
        };
        let inputs = vec![Real(vec![batch, side, side, classes])];
        list.op("resized_cross_entropy", shape, Op::new(inputs, vec![], apply).with(more));
    }

    fn pseudo_labels(self, list: &mut List) {
        let Scales { batch, crop, stride, classes, .. } = self;
        let side = crop / stride;
        let shape = json!({"batch": batch, "side": side, "classes": classes, "to": crop});
        list.plain("pseudo_labels", shape, move |bed: &Bed| {
            let make = |slot| {
                let valid = bed.bytes(&[batch, crop, crop], |i| (i / crop % crop > 30) as u8);
                (bed.numbers(&[batch, side, side, classes], slot), valid)
            };
            bed.rotating(make, move |device, (logits, valid)| {
                let (size, sure) = ((crop, crop), Confidence::default());
                ops::pseudo_labels(device, logits, size, Some(valid), sure, false).unwrap()
            })
        });
    }

    /// Evaluates an image twice as wide as the crop.
    fn evaluation(self, list: &mut List) {
        let Scales { crop, stride, classes, .. } = self;
        let (h, w) = (crop / stride, 2 * crop / stride);
        let shape = json!({"height": h, "width": w, "classes": classes, "stride": stride});
        list.plain("predict", shape, move |bed: &Bed| {
            let make = |slot| bed.numbers(&[1, h, w, classes], slot);
            bed.rotating(make, move |device, logits| {
                ops::predict(device, logits, (crop, 2 * crop)).unwrap()
            })
        });
        let shape = json!({"height": crop, "width": 2 * crop, "classes": classes});
        list.plain("confusion", shape, move |bed: &Bed| {
            let mut counts = Confusion::new(&bed.device, classes).unwrap();
            let make =
                |slot| [slot, slot + 5].map(|slot| bed.labels([1, crop, 2 * crop], classes, slot));
            bed.rotating(make, move |_, [prediction, label]: &mut [Tensor; 2]| {
                counts.add(prediction, label).unwrap()
            })
        });
    }

    /// `features` is the shape B,h,w,C.
    fn feature_distance(
        self,
        list: &mut List,
        features: [usize; 4],
        things: Vec<u8>,
        min_share: f64,
    ) {
        let Scales { batch, crop, classes, .. } = self;
        let [_, side, _, channels] = features;
        let shape = json!({"batch": batch, "side": side, "channels": channels, "picture": crop});
        let more = move |bed: &Bed, slot| {
            let flags = bed.bytes(&[256], |i| things.contains(&(i as u8)) as u8);
            let theirs = bed.operand(&features, slot + 1);
            vec![theirs, bed.labels([batch, crop, crop], classes, slot), flags]
        };
        let apply = move |tape: &Tape, s: &Set| {
            let [theirs, labels, flags] = [&s.more[0], &s.more[1], &s.more[2]];
            let distance =
                ops::feature_distance(tape, &s.x[0], theirs, labels, flags, min_share).unwrap();
            vec![distance.value]
        };
        let inputs = vec![Operand(features.to_vec())];
        list.op("feature_distance", shape, Op::new(inputs, vec![], apply).with(more));
    }
}
