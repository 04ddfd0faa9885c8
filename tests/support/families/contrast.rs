//! SePiCo's functions: the projection head, class statistics, contrast losses, and the crop.

use std::rc::Rc;

use udass_raw::device::Device;
use udass_raw::nn::{BatchNormMode, Pass, Projected, ProjectionHead};
use udass_raw::ops::{
    self, Bank, ClassMoments, ClassStatistics, ContrastSettings, Contrasted, class_sums,
};
use udass_raw::params::Spec;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

use super::layout::{compare_map, upload_image};
use super::networks::fill;
use super::said;
use super::training::compare_buffers;
use crate::support::cases::{Case, Outcome};
use crate::support::formula;
use crate::support::report::Report;

const CLASSES: usize = 19;

pub fn projection(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let batch: usize = case.read(&["B"])?;
    let levels: Vec<[usize; 3]> = case.read(&["features"])?;
    let channels: usize = case.read(&["channels"])?;
    let (of, widths) = match levels[..] {
        [[last, ..]] => (Projected::Last, [0, 0, 0, last]),
        [[a, ..], [b, ..], [c, ..], [d, ..]] => (Projected::All, [a, b, c, d]),
        _ => return Err(format!("{} levels are projected", levels.len())),
    };
    let mut spec = Spec::default();
    let head = ProjectionHead::new(&mut spec, "auxiliary_head", widths, of, channels);
    let mut weights = fill(device, &Rc::new(spec), true, "", &[])?;
    let tape = Tape::recording(device);
    let leaf = |i: usize| -> Outcome<Tensor> {
        let [c, h, w] = levels[i];
        let values = formula::image(&case.input(&format!("x{i}")), batch * c * h * w);
        let map = upload_image(device, [batch, c, h, w], &values)?;
        Ok(tape.leaf(&ops::to_operand(device, &map).map_err(said)?))
    };
    let leaves = (0..levels.len()).map(leaf).collect::<Outcome<Vec<_>>>()?;
    // The last level alone is read where only that is projected.
    let features: [Tensor; 4] = match of {
        Projected::Last => std::array::from_fn(|_| leaves[0].clone()),
        Projected::All => std::array::from_fn(|i| leaves[i].clone()),
    };
    let pass = Pass {
        tape: &tape,
        weights: &weights,
        batch_norm: BatchNormMode::Train,
        dropout_rng: None,
    };
    let y = head.forward(&pass, &features).map_err(said)?;
    compare_map(report, "out", device, &y)?;
    let [_, h, w] = levels[0];
    let seed = formula::image(&case.input("g"), y.len());
    let seed = upload_image(device, [batch, channels, h, w], &seed)?;
    let mut gradients = tape.backward(vec![(&y, seed)]).map_err(said)?;
    for (i, leaf) in leaves.iter().enumerate() {
        let gradient = gradients.of(leaf).ok_or("a level has no gradient")?;
        compare_map(report, &format!("grad/x{i}"), device, &gradient)?;
    }
    super::training::compare_gradients(report, device, &weights)?;
    let (pending, buffers) = (weights.pending.clone(), &mut weights.buffers);
    device.copy(&pending, buffers).map_err(said)?;
    compare_buffers(report, device, &weights, "bn/")
}

/// Sizes of the features and labels of a case.
struct Sizes {
    batch: usize,
    channels: usize,
    cells: [usize; 2],
    scale: usize,
}

impl Sizes {
    fn of(case: &Case) -> Outcome<Sizes> {
        let side = |key| case.read::<usize>(&[key]);
        Ok(Sizes {
            batch: side("B")?,
            channels: side("A")?,
            cells: [side("h")?, side("w")?],
            scale: side("scale")?,
        })
    }

    /// The cases' features: rectified numbers of the formula, scaled to unit length.
    fn features(&self, device: &Device, name: &str) -> Outcome<Tensor> {
        let Sizes { batch, channels, cells: [h, w], .. } = *self;
        let area = h * w;
        let mut values = formula::image(name, batch * channels * area);
        for image in values.chunks_exact_mut(channels * area) {
            for cell in 0..area {
                let own = |c: usize| f64::from(image[c * area + cell].max(0.0));
                let norm = (0..channels).map(|c| own(c) * own(c)).sum::<f64>().sqrt().max(1e-12);
                let unit: Vec<f32> = (0..channels).map(|c| (own(c) / norm) as f32).collect();
                unit.iter().enumerate().for_each(|(c, u)| image[c * area + cell] = *u);
            }
        }
        upload_image(device, [batch, channels, h, w], &values)
    }

    /// A stored label at the size of the features.
    fn labels(&self, report: &mut Report, device: &Device, key: &str) -> Outcome<Tensor> {
        let Sizes { batch, cells: [h, w], scale, .. } = *self;
        let label = report.input_bytes(key)?;
        let label = device.upload(&[batch, h * scale, w * scale], &label).map_err(said)?;
        ops::downscale_labels(device, &label, scale, 0.75).map_err(said)
    }

    fn compare_cells(
        &self,
        report: &mut Report,
        device: &Device,
        key: &str,
        cells: &Tensor,
    ) -> Outcome {
        let [h, w] = self.cells;
        let cells: Vec<u8> = device.read(cells).map_err(said)?;
        report.compare(key, &[self.batch, 1, h, w], &cells);
        Ok(())
    }
}

/// The state that SePiCo keeps, and what a batch adds to it.
struct State {
    statistics: ClassStatistics,
    bank: Bank,
}

impl State {
    fn new(device: &Device, channels: usize, length: usize) -> udass_raw::Result<State> {
        let statistics = ClassStatistics::new(device, CLASSES, channels)?;
        Ok(State { statistics, bank: Bank::new(device, CLASSES, length, channels)? })
    }

    fn take_in(&mut self, device: &Device, q: &Tensor, cells: &Tensor) -> udass_raw::Result<()> {
        let sums = class_sums(device, q, cells, CLASSES)?;
        let moments = ClassMoments::new(device, q, cells, sums)?;
        self.statistics.merge(device, &moments)?;
        self.bank.push(device, &moments)
    }
}

/// Compares the class statistics after an update.
pub fn compare_statistics(
    report: &mut Report,
    device: &Device,
    prefix: &str,
    statistics: &ClassStatistics,
) -> Outcome {
    let ClassStatistics { mean, variance, amount } = statistics;
    for (name, tensor) in [("mean", mean), ("variance", variance)] {
        let values = device.read_f32(tensor).map_err(said)?;
        report.compare(&format!("{prefix}{name}"), tensor.shape(), &values);
    }
    let amounts: Vec<i64> = device.read(amount).map_err(said)?;
    let amounts: Vec<f64> = amounts.into_iter().map(|n| n as f64).collect();
    report.compare(&format!("{prefix}amount"), &[CLASSES], &amounts);
    Ok(())
}

/// Compares the bank's vectors, class after class and the oldest first.
pub fn compare_bank(
    report: &mut Report,
    device: &Device,
    key: &str,
    bank: &Bank,
) -> Outcome<Vec<usize>> {
    let (length, channels) = (bank.vectors.dim(1), bank.vectors.channels());
    let vectors = device.read_f32(&bank.vectors).map_err(said)?;
    let pushed: Vec<i64> = device.read(&bank.pushed).map_err(said)?;
    let (mut all, mut lengths) = (Vec::new(), Vec::new());
    for (k, pushed) in pushed.into_iter().enumerate() {
        let pushed = pushed as usize;
        for m in pushed.saturating_sub(length)..pushed {
            all.extend_from_slice(&vectors[(k * length + m % length) * channels..][..channels]);
        }
        lengths.push(pushed.min(length));
    }
    report.compare(key, &[all.len() / channels, channels], &all);
    Ok(lengths)
}

pub fn statistics(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let sizes = Sizes::of(case)?;
    let lengths: Vec<Vec<usize>> = case.read(&["bank_lengths"])?;
    let length: usize = case.read(&["memory_length"])?;
    let mut state = State::new(device, sizes.channels, length).map_err(said)?;
    for (t, lengths) in lengths.iter().enumerate() {
        let q = sizes.features(device, &case.input(&format!("t{t}/q")))?;
        let cells = sizes.labels(report, device, &format!("t{t}/label"))?;
        sizes.compare_cells(report, device, &format!("t{t}/cells"), &cells)?;
        state.take_in(device, &q, &cells).map_err(said)?;
        compare_statistics(report, device, &format!("t{t}/"), &state.statistics)?;
        let pushed: Vec<i64> = device.read(&state.bank.pushed).map_err(said)?;
        let held = pushed.iter().map(|&n| (n as usize).min(length));
        report.require(&format!("t{t}: lengths of the queues"), held.eq(lengths.iter().copied()));
    }
    compare_bank(report, device, "bank", &state.bank)?;
    Ok(())
}

/// Rows made like the cases' means: rectified numbers of the formula, scaled to unit length.
fn unit_rows(name: &str, rows: usize, channels: usize) -> Vec<f32> {
    let values = formula::image(name, rows * channels);
    let row = |row: &[f32]| {
        let positive: Vec<f64> = row.iter().map(|&v| f64::from(v.max(0.0))).collect();
        let norm = positive.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
        positive.into_iter().map(|v| (v / norm) as f32).collect::<Vec<f32>>()
    };
    values.chunks_exact(channels).flat_map(row).collect()
}

/// One loss from given statistics, at several temperatures, without and with the regularizer.
pub fn losses(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let sizes = Sizes::of(case)?;
    let q = sizes.features(device, &case.input("in/q"))?;
    let cells = sizes.labels(report, device, "label")?;
    sizes.compare_cells(report, device, "cells", &cells)?;
    let lengths: Vec<usize> = case.read(&["bank_lengths"])?;
    let most = lengths.iter().copied().max().unwrap_or(1);
    let mut state = State::new(device, sizes.channels, most).map_err(said)?;
    let shape = [CLASSES, sizes.channels];
    let upload = |shape: &[usize], values: &[f32]| device.upload_real(shape, values).map_err(said);
    let mean = unit_rows(&case.input("mean"), CLASSES, sizes.channels);
    state.statistics.mean = upload(&shape, &mean)?;
    let variance = formula::unit(&case.input("variance"), CLASSES * sizes.channels);
    let variance: Vec<f32> = variance.into_iter().map(|v| 0.25 * v).collect();
    state.statistics.variance = upload(&shape, &variance)?;
    let mut bank = vec![0.0; CLASSES * most * sizes.channels];
    for (k, &length) in lengths.iter().enumerate() {
        let rows = unit_rows(&case.input(&format!("bank{k}")), length, sizes.channels);
        bank[k * most * sizes.channels..][..rows.len()].copy_from_slice(&rows);
    }
    state.bank.vectors = upload(&[CLASSES, most, sizes.channels], &bank)?;
    let pushed: Vec<i64> = lengths.iter().map(|&n| n as i64).collect();
    state.bank.pushed = device.upload(&[CLASSES], &pushed).map_err(said)?;
    let with = contrasted(&case.name, &state.bank)?;
    let temperatures: Vec<f64> = case.read(&["temperatures"])?;
    let weights: Vec<f64> = case.read(&["reg_weights"])?;
    for temperature in temperatures {
        for &regularizer in &weights {
            let settings = ContrastSettings { temperature, regularizer };
            let run = || loss(device, &q, &cells, &state.statistics, with, settings);
            let (value, term, gradient) = run().map_err(said)?;
            let key = format!("tau{temperature}_reg{regularizer}");
            report.scalar(&format!("{key}/loss"), value);
            compare_map(report, &format!("{key}/grad_q"), device, &gradient)?;
            report.scalar(&format!("reg{temperature}/regulariser"), term);
        }
    }
    Ok(())
}

fn contrasted<'a>(name: &str, bank: &'a Bank) -> Outcome<Contrasted<'a>> {
    match name {
        name if name.contains("proto") => Ok(Contrasted::Prototypes),
        name if name.contains("dist") => Ok(Contrasted::Distributions),
        name if name.contains("bank") => Ok(Contrasted::Bank(bank)),
        other => Err(format!("{other} is no variant of SePiCo")),
    }
}

/// Returns the loss, the regularizer, and the gradient of the features.
fn loss(
    device: &Device,
    q: &Tensor,
    cells: &Tensor,
    statistics: &ClassStatistics,
    with: Contrasted,
    settings: ContrastSettings,
) -> udass_raw::Result<(f64, f64, Tensor)> {
    let tape = Tape::recording(device);
    let leaf = tape.leaf(q);
    let sums = class_sums(device, q, cells, CLASSES)?;
    let loss = ops::contrast(&tape, &leaf, cells, &sums, statistics, with, settings)?;
    let one = |x: &Tensor| Ok::<_, udass_raw::Error>(f64::from(device.read_f32(x)?[0]));
    let (value, term) = (one(&loss.value)?, one(&loss.regularizer)?);
    let seed = device.upload_real(&[1], &[1.0])?;
    let mut gradients = tape.backward(vec![(&loss.value, seed)])?;
    let gradient = gradients.of(&leaf);
    let none = || device.zeros(q.shape(), q.dtype());
    Ok((value, term, gradient.map_or_else(none, Ok)?))
}

/// Statistics and losses over several iterations.
pub fn chain(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let sizes = Sizes::of(case)?;
    let steps = case.read::<Vec<Vec<u8>>>(&["classes_per_step"])?.len();
    let temperature: f64 = case.read(&["temperature"])?;
    let settings = ContrastSettings { temperature, regularizer: 1.0 };
    let length = case.read(&["memory_length"])?;
    let mut state = State::new(device, sizes.channels, length).map_err(said)?;
    for t in 0..steps {
        let q = |part: &str| sizes.features(device, &case.input(&format!("t{t}/{part}/q")));
        let source = sizes.labels(report, device, &format!("t{t}/label"))?;
        let target = sizes.labels(report, device, &format!("t{t}/target_label"))?;
        state.take_in(device, &q("teacher")?, &source).map_err(said)?;
        for variant in ["proto", "bank", "dist"] {
            let with = contrasted(variant, &state.bank)?;
            for (part, cells) in [("source", &source), ("target", &target)] {
                let run = |q: &Tensor| loss(device, q, cells, &state.statistics, with, settings);
                let (value, _, gradient) = run(&q(part)?).map_err(said)?;
                let key = format!("t{t}/{variant}/{part}");
                report.scalar(&format!("{key}/loss"), value);
                if t + 1 == steps {
                    compare_map(report, &format!("{key}/grad_q"), device, &gradient)?;
                }
            }
        }
    }
    Ok(())
}

pub fn class_balanced_crop(report: &mut Report, device: &Device) -> Outcome {
    #[derive(serde::Deserialize)]
    struct Image {
        boxes: Vec<[i32; 4]>,
        chosen: usize,
    }
    let case = report.case();
    let images: Vec<Image> = case.read(&["images"])?;
    let [h, w]: [usize; 2] = [case.read(&["H"])?, case.read(&["W"])?];
    let max_share: f64 = case.read(&["max_share"])?;
    let label = report.input_bytes("label")?;
    let label = device.upload(&[images.len(), h, w], &label).map_err(said)?;
    let boxes: Vec<[i32; 4]> = images.iter().flat_map(|image| image.boxes.clone()).collect();
    let many = boxes.len() / images.len();
    let boxes = device.upload(&[images.len(), many, 4], boxes.as_flattened()).map_err(said)?;
    let chosen = ops::most_balanced(device, &label, &boxes, max_share).map_err(said)?;
    let chosen: Vec<i32> = device.read(&chosen).map_err(said)?;
    for (i, (image, place)) in images.iter().zip(chosen.chunks_exact(4)).enumerate() {
        let what = format!("image {i}: the box {place:?}");
        report.require(&what, image.boxes[image.chosen] == place);
    }
    Ok(())
}
