//! The finite-difference check.

use udass_raw::Result;
use udass_raw::params::Param;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

pub use crate::case::{Case, numbers};

/// Step of the central difference: its truncation error is about the step squared, its rounding
/// error about 1e-16 divided by the step.
const STEP: f64 = 1e-5;
/// The sum of both errors, times the largest third derivatives that these ops reach on inputs of
/// order one.
const TOLERANCE: f64 = 2e-8;

/// Compares the gradients of `Σ weight·y` with central differences in every input and parameter.
/// The sum is over all outputs that `op` returns, with a random weight per element.
pub fn check(case: &Case, op: impl Fn(&Tape, &[Tensor], &[Param]) -> Result<Vec<Tensor>>) {
    let device = crate::double();
    let fill = |seed: usize, shape: &[usize]| -> Vec<f64> {
        numbers(seed as u64 + 1, shape.iter().product()).into_iter().map(case.map).collect()
    };
    let shapes: Vec<&[usize]> = case.inputs.iter().chain(case.params).copied().collect();
    let mut values: Vec<Vec<f64>> = shapes.iter().enumerate().map(|(i, s)| fill(i, s)).collect();
    let split = case.inputs.len();

    // Returns the outputs and, if requested, the gradients.
    let run = |values: &[Vec<f64>], differentiate: bool| {
        let tape = if differentiate { Tape::recording(&device) } else { Tape::inference(&device) };
        let upload = |i: usize| device.upload(shapes[i], &values[i]).unwrap();
        let inputs: Vec<Tensor> = (0..split)
            .map(|i| if differentiate { tape.leaf(&upload(i)) } else { upload(i) })
            .collect();
        let params: Vec<Param> = (split..shapes.len())
            .map(|i| {
                let value = upload(i);
                let grad = device.zeros(value.shape(), value.dtype()).unwrap();
                Param::new(value, Some(grad))
            })
            .collect();
        let outputs = op(&tape, &inputs, &params).unwrap();
        let weights: Vec<Vec<f64>> =
            outputs.iter().enumerate().map(|(i, y)| numbers(1000 + i as u64, y.len())).collect();
        let loss: f64 = (outputs.iter().zip(&weights))
            .map(|(y, w)| {
                let y = device.read::<f64>(y).unwrap();
                y.iter().zip(w).map(|(y, w)| y * w).sum::<f64>()
            })
            .sum();
        if !differentiate {
            return (loss, Vec::new());
        }
        let seeds = (outputs.iter().zip(&weights))
            .map(|(y, w)| (y, device.upload(y.shape(), w).unwrap()))
            .collect();
        let mut gradients = tape.backward(seeds).unwrap();
        let of_inputs = inputs.iter().map(|x| {
            let gradient = gradients.of(x).expect("no gradient reached an input");
            device.read::<f64>(&gradient).unwrap()
        });
        let mut all: Vec<Vec<f64>> = of_inputs.collect();
        all.extend(params.iter().map(|p| device.read::<f64>(p.grad.as_ref().unwrap()).unwrap()));
        (loss, all)
    };

    let (_, gradients) = run(&values, true);
    let mut largest = 0.0f64;
    for i in 0..shapes.len() {
        // Checks at most about 60 elements of each tensor, spread over it.
        let stride = values[i].len().div_ceil(60).max(1);
        for j in (0..values[i].len()).step_by(stride) {
            let middle = values[i][j];
            values[i][j] = middle + STEP;
            let above = run(&values, false).0;
            values[i][j] = middle - STEP;
            let below = run(&values, false).0;
            values[i][j] = middle;
            let numeric = (above - below) / (2.0 * STEP);
            let analytic = gradients[i][j];
            let allowed = TOLERANCE * (1.0 + numeric.abs()) + 1e-11 * above.abs();
            largest = largest.max(numeric.abs());
            let error = (numeric - analytic).abs();
            if error.is_nan() || error > allowed {
                panic!(
                    "argument {i}, element {j}: numeric {numeric}, analytic {analytic}, \
                     difference {error:.1e} exceeds {allowed:.1e}"
                );
            }
        }
    }
    assert!(largest > 1e-6, "all gradients vanish: the case proves nothing");
}
