use crate::check::{Case, check, numbers};
use udass_raw::Result;
use udass_raw::device::Device;
use udass_raw::ops::{self, Bank, ClassStatistics, ContrastSettings, Contrasted};
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

const CLASSES: usize = 5;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Prototypes,
    Distributions,
    Bank,
}

/// Numbers that every precision represents exactly.
fn exact(device: &Device, seed: u64, shape: &[usize], least: f64) -> Result<Tensor> {
    let round = |x: f64| ((x.max(least) * 64.0).round() / 64.0) as f32;
    let values: Vec<f32> = numbers(seed, shape.iter().product()).into_iter().map(round).collect();
    device.upload_real(shape, &values)
}

/// Labels of which some are 255 and some are above all classes.
fn labels(cells: usize) -> Vec<u8> {
    let label = |i: usize| match i % 7 {
        3 => 255,
        5 if i.is_multiple_of(2) => CLASSES as u8,
        _ => (i * 3 % CLASSES) as u8,
    };
    (0..cells).map(label).collect()
}

/// The loss at a temperature low enough that gradients are well above rounding.
fn loss(tape: &Tape, q: &Tensor, labels: &[u8], kind: Kind, length: usize) -> Result<Tensor> {
    let device = tape.device();
    let (channels, cells) = (q.channels(), q.rows());
    let labels = device.upload(&[cells], labels)?;
    let shape = [CLASSES, channels];
    let mut statistics = ClassStatistics::new(device, CLASSES, channels)?;
    statistics.mean = exact(device, 11, &shape, -1.0)?;
    statistics.variance = exact(device, 12, &shape, 0.0)?;
    let mut bank = Bank::new(device, CLASSES, length, channels)?;
    bank.vectors = exact(device, 13, &[CLASSES, length, channels], -1.0)?;
    // Queues that hold one vector, some, and more than went in last.
    let pushed: Vec<i64> = (0..CLASSES as i64).map(|k| 1 + 2 * k).collect();
    bank.pushed = device.upload(&[CLASSES], &pushed)?;
    let with = match kind {
        Kind::Prototypes => Contrasted::Prototypes,
        Kind::Distributions => Contrasted::Distributions,
        Kind::Bank => Contrasted::Bank(&bank),
    };
    let sums = ops::class_sums(device, &q.detach(), &labels, CLASSES)?;
    let settings = ContrastSettings { temperature: 0.5, regularizer: 0.75 };
    ops::contrast(tape, q, &labels, &sums, &statistics, with, settings).map(|loss| loss.value)
}

fn contrast(shape: &[usize], kind: Kind, length: usize) {
    let case = Case { inputs: &[shape], ..Default::default() };
    check(&case, |tape, x, _| Ok(vec![loss(tape, &x[0], &labels(x[0].rows()), kind, length)?]));
}

#[test]
fn prototypes() {
    contrast(&[3, 3, 5, 7], Kind::Prototypes, 1);
}

#[test]
fn distributions() {
    contrast(&[1, 5, 7, 9], Kind::Distributions, 1);
}

#[test]
fn distributions_of_more_channels_than_a_warp() {
    contrast(&[3, 2, 3, 64], Kind::Distributions, 1);
}

#[test]
fn bank() {
    contrast(&[3, 3, 5, 7], Kind::Bank, 4);
}

#[test]
fn bank_of_more_channels_than_a_warp() {
    contrast(&[1, 3, 3, 48], Kind::Bank, 3);
}

#[test]
fn features_that_are_used_twice_collect_both_gradients() {
    let case = Case { inputs: &[&[1, 3, 5, 8]], ..Default::default() };
    check(&case, |tape, x, _| {
        let labels = labels(15);
        let first = loss(tape, &x[0], &labels, Kind::Distributions, 1)?;
        Ok(vec![first, loss(tape, &x[0], &labels, Kind::Bank, 2)?])
    });
}

/// Without a labeled cell there is neither a loss nor a gradient, not even the regularizer's.
#[test]
fn no_label_gives_no_loss_and_no_gradient() {
    let device = Device::host_f64().unwrap();
    for kind in [Kind::Prototypes, Kind::Distributions, Kind::Bank] {
        let tape = Tape::recording(&device);
        let q = tape.leaf(&device.upload(&[4, 3], &[0.5f64; 12]).unwrap());
        let value = loss(&tape, &q, &[255; 4], kind, 2).unwrap();
        assert_eq!(device.read::<f64>(&value).unwrap(), [0.0]);
        let seed = device.upload(&[1], &[1.0f64]).unwrap();
        let mut gradients = tape.backward(vec![(&value, seed)]).unwrap();
        let gradient = gradients.of(&q).unwrap();
        assert_eq!(device.read::<f64>(&gradient).unwrap(), [0.0; 12]);
    }
}

/// Similarities far apart leave the loss finite: the exponentials are of differences.
#[test]
fn features_far_from_all_classes() {
    let case = Case { inputs: &[&[1, 2, 3, 5]], map: |x| 100.0 * x, ..Default::default() };
    for kind in [Kind::Prototypes, Kind::Bank] {
        check(&case, |tape, x, _| Ok(vec![loss(tape, &x[0], &labels(6), kind, 3)?]));
    }
}
