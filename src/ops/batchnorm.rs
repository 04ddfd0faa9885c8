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
            kernels::BatchnormInverse {
                variance: &running_var,
                inv_std: &mut inv_std,
                channels,
                eps,
            }
            .launch(device, grid)?;
        }
    }
    let mut y = device.empty_like(x)?;
    let grid = lanes(device.rows(rows, channels), channels);
    kernels::BatchnormForward {
        x,
        mean: &mean,
        inv_std: &inv_std,
        weight: &weight.value,
        bias: &bias.value,
        y: &mut y,
        rows,
        channels,
        relu,
    }
    .launch(device, grid)?;

    let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        let parts = parts(rows, channels);
        let mut sums = device.empty(&[parts, channels])?;
        let mut products = device.empty(&[parts, channels])?;
        let mut sum = device.empty(&[channels])?;
        let mut product = device.empty(&[channels])?;
        let blocks = lanes(Grid::blocks(parts), channels);
        kernels::BatchnormGradientPartial {
            x: &x,
            dy: &dy,
            mean: &mean,
            inv_std: &inv_std,
            weight: &weight.value,
            bias: &bias.value,
            sums: &mut sums,
            products: &mut products,
            rows,
            channels,
            relu,
        }
        .launch(&device, blocks)?;
        let (mut dw, mut db) = (weight.grad.clone(), bias.grad.clone());
        kernels::BatchnormGradientFinal {
            sums: &sums,
            products: &products,
            sum: &mut sum,
            product: &mut product,
            dweight: dw.as_mut(),
            dbias: db.as_mut(),
            parts,
            channels,
        }
        .launch(&device, over_parts(&device, parts, channels))?;
        if x.slot.is_none() {
            return Ok(());
        }
        // Every element is read before it is written, so dx may take dy's place.
        let mut dx = if dy.is_unique() { dy.detach() } else { device.empty_like(&x)? };
        kernels::BatchnormBackward {
            x: &x,
            dy: &dy,
            mean: &mean,
            inv_std: &inv_std,
            weight: &weight.value,
            bias: &bias.value,
            sum: &sum,
            product: &product,
            dx: &mut dx,
            rows,
            channels,
            train,
            relu,
        }
        .launch(&device, grid)?;
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
    let blocks = lanes(Grid::blocks(parts), channels);
    kernels::BatchnormPartial { x, means: &mut means, deviations: &mut deviations, rows, channels }
        .launch(device, blocks)?;
    kernels::BatchnormStatistics {
        means: &means,
        deviations: &deviations,
        mean,
        inv_std,
        running_mean,
        running_var,
        tracked: tracked.as_mut(),
        parts,
        rows,
        channels,
        momentum,
        eps,
    }
    .launch(device, over_parts(device, parts, channels))
}

/// Parts that the rows are summed in: enough to fill a device, and small enough to stay in cache
/// between two passes. A function of the shape, so that the order of a sum is.
fn parts(rows: usize, channels: usize) -> usize {
    let for_cache = (rows * channels).div_ceil(PART_ELEMENTS).clamp(1, 1024).min(rows);
    for_cache.max(row_parts(rows))
}
