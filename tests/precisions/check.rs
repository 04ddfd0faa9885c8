//! Compares an op at each precision with double precision.

use std::sync::Mutex;

use udass_raw::Result;
use udass_raw::device::{Device, Precision};
use udass_raw::ops;
use udass_raw::params::Param;
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};

pub use crate::case::{Case, numbers};

/// The allowed error relative to the result's norm is this many roundings of every operand, plus as
/// many single-precision roundings for each term of a sum of `TERMS` terms. In addition, each
/// element may be off by as many single-precision roundings of the inputs' square.
const ROUNDINGS: f64 = 8.0;
const TERMS: f64 = 16.0;

fn unit(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2f64.powi(-24),
        Precision::Tf32 => 2f64.powi(-11),
        Precision::Bf16 => 2f64.powi(-9),
    }
}

/// The outputs and the gradients of inputs and parameters, in order.
type Results = Vec<Vec<f64>>;

/// Runs `op` and its backward at every precision and in double precision, on numbers that all types
/// represent exactly: ReLU and maximum then switch at the same elements.
pub fn check(case: &Case, op: impl Fn(&Tape, &[Tensor], &[Param]) -> Result<Vec<Tensor>>) {
    let all = [("f32", Precision::F32), ("tf32", Precision::Tf32), ("bf16", Precision::Bf16)];
    let chosen = std::env::var("UDASS_PRECISION");
    let wanted = |name: &str| chosen.as_ref().map_or(true, |chosen| chosen == name);
    for (_, precision) in all.into_iter().filter(|(name, _)| wanted(name)) {
        match std::env::var("UDASS_DEVICE").as_deref() {
            Ok("cuda") => on_the_gpu(precision, |device| check_on(device, precision, case, &op)),
            _ => check_on(&Device::host_in(2, precision).unwrap(), precision, case, &op),
        }
    }
}

/// A GPU's device, which all checks at its precision share: creating one and loading its kernels
/// takes longer than a check.
struct Shared(Precision, Device);

// SAFETY: a device is used only while the lock of `DEVICES` is held, and whatever refers to it is
// dropped before the lock is released.
unsafe impl Send for Shared {}

static DEVICES: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

fn on_the_gpu(precision: Precision, check: impl FnOnce(&Device)) {
    // A check that failed has dropped its tensors and harms no other.
    let mut devices = DEVICES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let known = devices.iter().position(|shared| shared.0 == precision);
    let index = known.unwrap_or_else(|| {
        devices.push(Shared(precision, Device::cuda(precision, true).unwrap()));
        devices.len() - 1
    });
    check(&devices[index].1);
}

fn check_on(
    device: &Device,
    precision: Precision,
    case: &Case,
    op: &impl Fn(&Tape, &[Tensor], &[Param]) -> Result<Vec<Tensor>>,
) {
    let reference = Device::host_f64().unwrap();
    let wanted = run(case, op, &reference, precision, 0).unwrap();
    // Only the op knows which inputs are operands and which are `real`: it rejects the other
    // combinations.
    let kinds = if device.operand() == device.real() { 1 } else { 1 << case.inputs.len() };
    let mut refused = String::new();
    let got = (0..kinds).rev().find_map(|operands| {
        let result = run(case, op, device, precision, operands);
        result.map_err(|e| refused = e.to_string()).ok()
    });
    let got = got.unwrap_or_else(|| panic!("{precision:?}: {refused}"));
    assert_eq!(got.len(), wanted.len());
    let allowed = ROUNDINGS * (unit(precision) + TERMS * unit(Precision::F32));
    for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let off = norm(&mut got.iter().zip(wanted).map(|(g, w)| g - w));
        let size = norm(&mut wanted.iter().copied());
        let least = ROUNDINGS * unit(Precision::F32) * (wanted.len() as f64).sqrt();
        let largest = (case.map)(1.0).abs().max((case.map)(-1.0).abs()).max(1.0);
        let least = least * largest * largest;
        // This form fails on NaN.
        assert!(
            got.len() == wanted.len() && off <= allowed * size + least,
            "{precision:?}: result {i} of {} is off by {:.1e}, {allowed:.1e} are allowed",
            wanted.len(),
            off / size
        );
    }
}

/// `operands`: a bit mask of the inputs that are operands.
fn run(
    case: &Case,
    op: impl Fn(&Tape, &[Tensor], &[Param]) -> Result<Vec<Tensor>>,
    device: &Device,
    precision: Precision,
    operands: usize,
) -> Result<Results> {
    let upload = |seed: usize, shape: &[usize]| -> Result<Tensor> {
        let values = numbers(seed as u64, shape.iter().product()).into_iter();
        let values: Vec<f32> = values.map(|x| exact((case.map)(x), precision)).collect();
        device.upload_real(shape, &values)
    };
    let of_type =
        |x: Tensor, operand: bool| if operand { ops::to_operand(device, &x) } else { Ok(x) };
    let tape = Tape::recording(device);
    let split = case.inputs.len();
    let mut inputs = Vec::new();
    for (i, shape) in case.inputs.iter().enumerate() {
        inputs.push(tape.leaf(&of_type(upload(i + 1, shape)?, operands >> i & 1 == 1)?));
    }
    let mut params = Vec::new();
    for (i, shape) in case.params.iter().enumerate() {
        let value = upload(split + i + 1, shape)?;
        let grad = device.zeros(value.shape(), value.dtype())?;
        params.push(Param::new(value, Some(grad)));
    }
    let outputs = op(&tape, &inputs, &params)?;
    let mut results = Vec::new();
    let mut seeds = Vec::new();
    for (i, y) in outputs.iter().enumerate() {
        results.push(read(device, y)?);
        seeds.push((y, of_type(upload(1000 + i, y.shape())?, y.dtype() != device.real())?));
    }
    let mut gradients = tape.backward(seeds)?;
    for input in &inputs {
        let gradient = gradients.of(input).expect("no gradient reached an input");
        results.push(read(device, &gradient)?);
    }
    for param in &params {
        results.push(read(device, param.grad.as_ref().expect("made with one"))?);
    }
    Ok(results)
}

fn read(device: &Device, x: &Tensor) -> Result<Vec<f64>> {
    match x.dtype() {
        DType::F64 => device.read(x),
        _ => Ok(device.read_f32(x)?.into_iter().map(f64::from).collect()),
    }
}

/// Returns the nearest number that the operand type represents.
fn exact(x: f64, precision: Precision) -> f32 {
    match precision {
        Precision::F32 => x as f32,
        // bf16 has fewer digits than tf32.
        Precision::Tf32 | Precision::Bf16 => half::bf16::from_f64(x).to_f32(),
    }
}
