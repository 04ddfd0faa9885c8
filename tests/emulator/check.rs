//! Runs each case of the finite-difference tests once, forward and backward, in single precision.

use udass_raw::Result;
use udass_raw::device::Types;
use udass_raw::params::Param;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

pub use crate::case::{Case, numbers};

/// Runs `op` and its backward on the device that checks every launch. Results are checked
/// elsewhere; here they must only be finite.
pub fn check(case: &Case, op: impl Fn(&Tape, &[Tensor], &[Param]) -> Result<Vec<Tensor>>) {
    let device = crate::prover::device(Types::F32);
    let upload = |seed: usize, shape: &[usize]| {
        let values = numbers(seed as u64, shape.iter().product()).into_iter();
        let values: Vec<f32> = values.map(|x| (case.map)(x) as f32).collect();
        device.upload_real(shape, &values).unwrap()
    };
    let tape = Tape::recording(&device);
    let split = case.inputs.len();
    let inputs: Vec<Tensor> =
        case.inputs.iter().enumerate().map(|(i, shape)| tape.leaf(&upload(i + 1, shape))).collect();
    let params: Vec<Param> = (case.params.iter().enumerate())
        .map(|(i, shape)| {
            let value = upload(split + i + 1, shape);
            let grad = device.zeros(value.shape(), value.dtype()).unwrap();
            Param::new(value, Some(grad))
        })
        .collect();
    let outputs = op(&tape, &inputs, &params).unwrap();
    let seeds = (outputs.iter().enumerate()).map(|(i, y)| (y, upload(1000 + i, y.shape())));
    let mut gradients = tape.backward(seeds.collect()).unwrap();
    for input in &inputs {
        let gradient = gradients.of(input).expect("no gradient reached an input");
        assert!(device.read_f32(&gradient).unwrap().iter().all(|x| x.is_finite()));
    }
}
