//! Batch normalisation, with the ReLU that follows it.

use crate::device::{Device, Grid, kernels};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::channels::lanes;
use super::linear::{over_parts, row_parts};

/// Elements that a core keeps at hand.
const PART_ELEMENTS: usize = 16 << 10;

/// The parameters and buffers of one layer, C elements each.
pub struct BatchNorm<'a> {
    pub weight: &'a Param,
    pub bias: &'a Param,
    /// Moved in place when training.
    pub running_mean: Tensor,
    /// The unbiased variance.
    pub running_var: Tensor,
    /// One element: how many batches were seen.
    pub tracked: Option<Tensor>,
}

/// Whose statistics normalise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// The batch's, towards which the running ones are moved by `momentum`.
    Train { momentum: f64 },
    /// The running ones.
    Eval,
}

/// `y = (x - mean)/√(variance + eps)·weight + bias` per channel, and `max(y, 0)` with `relu`.
/// x: …,C. The variance that normalises a batch is the biased one.
pub fn batchnorm(
    tape: &Tape,
    x: &Tensor,
    norm: BatchNorm,
    eps: f64,
    mode: Mode,
    relu: bool,
) -> Result<Tensor> {
    let device = tape.device();
    let (rows, channels) = (x.rows(), x.channels());
    let BatchNorm { weight, bias, running_mean, running_var, tracked } = norm;
    for tensor in [&weight.value, &bias.value, &running_mean, &running_var] {
        if tensor.len() != channels {
            let problem = format!("input {x:?} does not fit parameters {tensor:?}");
            return Err(Error::shape("batchnorm", problem));
        }
    }
    let train = mode != Mode::Eval;
    if train && rows < 2 {
        let problem = format!(
            "{x:?} holds one value per channel, which has no variance; \
             training needs a larger batch or image here"
        );
        return Err(Error::shape("batchnorm", problem));
    }

    let mut mean = device.empty(&[channels])?;
    let mut inv_std = device.empty(&[channels])?;
    match mode {
        Mode::Train { momentum } => {
            let mut running = (running_mean, running_var, tracked);
            batch_statistics(device, x, (&mut mean, &mut inv_std), &mut running, momentum, eps)?;
        }
        Mode::Eval => {
            // A copy: a training pass may move the running mean before the backward pass.
            device.copy(&running_mean, &mut mean)?;
            let grid = device.elements(channels);
            let c = channels as i64;
            kernels::batchnorm_inverse(device, grid, &running_var, &mut inv_std, c, eps)?;
        }
    }
    let mut y = device.empty_like(x)?;
    let grid = lanes(device.rows(rows, channels), channels);
    let (r, c, relu) = (rows as i64, channels as i64, relu as i32);
    let (w, b) = (&weight.value, &bias.value);
    kernels::batchnorm_forward(device, grid, x, &mean, &inv_std, w, b, &mut y, r, c, relu)?;

    let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        let (w, b) = (&weight.value, &bias.value);
        let parts = parts(rows, channels);
        let mut sums = device.empty(&[parts, channels])?;
        let mut products = device.empty(&[parts, channels])?;
        let mut sum = device.empty(&[channels])?;
        let mut product = device.empty(&[channels])?;
        let blocks = lanes(Grid::blocks(parts), channels);
        kernels::batchnorm_gradient_partial(
            &device,
            blocks,
            &x,
            &dy,
            &mean,
            &inv_std,
            w,
            b,
            &mut sums,
            &mut products,
            r,
            c,
            relu,
        )?;
        let (mut dw, mut db) = (weight.grad.clone(), bias.grad.clone());
        let (dw, db) = (dw.as_mut(), db.as_mut());
        let (p, over) = (parts as i64, over_parts(&device, parts, channels));
        kernels::batchnorm_gradient_final(
            &device,
            over,
            &sums,
            &products,
            &mut sum,
            &mut product,
            dw,
            db,
            p,
            c,
        )?;
        if x.slot.is_none() {
            return Ok(());
        }
        // Every element is read before it is written, so dx may take dy's place.
        let mut dx = if dy.is_unique() { dy.detach() } else { device.empty_like(&x)? };
        let train = train as i32;
        kernels::batchnorm_backward(
            &device, grid, &x, &dy, &mean, &inv_std, w, b, &sum, &product, &mut dx, r, c, train,
            relu,
        )?;
        gradients.give(&x.slot, dx)
    }))
}

/// Mean and 1/√(variance + eps) of every channel; moves the running (mean, variance, count).
fn batch_statistics(
    device: &Device,
    x: &Tensor,
    (mean, inv_std): (&mut Tensor, &mut Tensor),
    (running_mean, running_var, tracked): &mut (Tensor, Tensor, Option<Tensor>),
    momentum: f64,
    eps: f64,
) -> Result<()> {
    let (rows, channels) = (x.rows(), x.channels());
    let parts = parts(rows, channels);
    let mut means = device.empty(&[parts, channels])?;
    let mut deviations = device.empty(&[parts, channels])?;
    let (p, r, c) = (parts as i64, rows as i64, channels as i64);
    let blocks = lanes(Grid::blocks(parts), channels);
    kernels::batchnorm_partial(device, blocks, x, &mut means, &mut deviations, r, c)?;
    kernels::batchnorm_statistics(
        device,
        over_parts(device, parts, channels),
        &means,
        &deviations,
        mean,
        inv_std,
        running_mean,
        running_var,
        tracked.as_mut(),
        p,
        r,
        c,
        momentum,
        eps,
    )
}

/// Parts that the rows are summed in: enough to fill a device, and small enough to stay in cache
/// between two passes. A function of the shape, so that the order of a sum is.
fn parts(rows: usize, channels: usize) -> usize {
    let for_cache = (rows * channels).div_ceil(PART_ELEMENTS).clamp(1, 1024).min(rows);
    for_cache.max(row_parts(rows))
}
