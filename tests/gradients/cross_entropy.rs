use crate::check::{Case, check, numbers};
use udass_raw::ops;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

/// Labels of which about a fifth are no class, 255, and weights in [0, 1).
fn labels(tape: &Tape, shape: &[usize], classes: u8) -> (Tensor, Tensor) {
    let u = numbers(77, shape.iter().product());
    let label = |x: &f64| match (x * 1000.0) as i64 {
        k if k % 7 == 0 || k % 11 == 0 => 255,
        k => k.unsigned_abs() as u8 % classes,
    };
    let labels: Vec<u8> = u.iter().map(label).collect();
    let weights: Vec<f32> = u.iter().rev().map(|x| (x * 0.5 + 0.5) as f32).collect();
    let device = tape.device();
    (device.upload(shape, &labels).unwrap(), device.upload_real(shape, &weights).unwrap())
}

fn cross_entropy(logits: &[usize], picture: &[usize], weighted: bool) {
    // Logits large enough that the gradients of a mean over all pixels are well above rounding.
    let case = Case { inputs: &[logits], map: |x| 3.0 * x, ..Default::default() };
    check(&case, |tape, x, _| {
        let (labels, weights) = labels(tape, picture, logits[3] as u8);
        let loss = ops::cross_entropy(tape, &x[0], &labels, weighted.then_some(&weights))?;
        Ok(vec![loss.value])
    });
}

#[test]
fn at_the_size_of_the_label() {
    cross_entropy(&[1, 5, 7, 3], &[1, 5, 7], false);
}

#[test]
fn upsampled_by_four_over_several_runs() {
    cross_entropy(&[1, 3, 37, 19], &[1, 12, 148], true);
}

#[test]
fn upsampled_by_no_integer() {
    cross_entropy(&[3, 4, 5, 17], &[3, 9, 71], true);
}

#[test]
fn more_classes_than_a_long_run_has_room_for() {
    cross_entropy(&[1, 2, 3, 254], &[1, 3, 41], true);
}

#[test]
fn shrunk() {
    cross_entropy(&[3, 9, 11, 5], &[3, 4, 3], false);
}

/// Logits so far apart that some probabilities underflow to 0 in single precision.
#[test]
fn logits_far_apart() {
    let case = Case { inputs: &[&[1, 4, 5, 7]], map: |x| 100.0 * x, ..Default::default() };
    check(&case, |tape, x, _| {
        let (labels, weights) = labels(tape, &[1, 7, 9], 7);
        let loss = ops::cross_entropy(tape, &x[0], &labels, Some(&weights))?;
        Ok(vec![loss.value])
    });
}

#[test]
fn logits_that_are_used_twice_collect_both_gradients() {
    let case = Case { inputs: &[&[3, 3, 4, 5]], ..Default::default() };
    check(&case, |tape, x, _| {
        let (small, _) = labels(tape, &[3, 6, 8], 5);
        let (large, weights) = labels(tape, &[3, 9, 11], 5);
        let first = ops::cross_entropy(tape, &x[0], &small, None)?;
        let second = ops::cross_entropy(tape, &x[0], &large, Some(&weights))?;
        Ok(vec![first.value, second.value])
    });
}
