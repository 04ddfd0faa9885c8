//! Batch normalization, fused with the ReLU that follows it.

use crate::device::group::BatchNormOver;
use crate::device::{ALIGNMENT, Device, Grid, kernels};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::channels::lanes;
use super::linear::{over_parts, row_parts};

/// Elements that fit in a core's cache.
const PART_ELEMENTS: usize = 16 << 10;

/// The parameters and buffers of one layer, with C elements each.
pub struct BatchNorm<'a> {
    /// The scale γ.
    pub weight: &'a Param,
    /// The shift β.
    pub bias: &'a Param,
    /// The running mean, updated in place in training.
    pub running_mean: Tensor,
    /// The running variance (unbiased), updated in place in training.
    pub running_var: Tensor,
    /// The number of batches seen, one element.
    pub tracked: Option<Tensor>,
}

/// The statistics that normalize the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// The statistics of the batch. The running statistics move towards them by `momentum`.
    Train {
        /// Weight of the batch in the running statistics.
        momentum: f64,
    },
    /// The running statistics.
    Eval,
}

/// Returns `(x - mean)/√(variance + eps)·weight + bias` per channel, clamped to at least 0 with
/// `relu`. x: …,C. The variance of a batch is the biased one.
///
/// # Errors
/// Returns a shape error if the parameters do not have C elements, or a batch has a single value
/// per channel in training.
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
            let problem = format!("input {x:?} does not match parameters {tensor:?}");
            return Err(Error::shape("batchnorm", problem));
        }
    }
    let train = mode != Mode::Eval;
    let whole = device.batch_norm_over() == BatchNormOver::All;
    let processes = if train && whole { device.place().size } else { 1 };
    if train && rows * processes < 2 {
        let problem = format!(
            "{x:?} has a single value per channel, so its variance is undefined; train with a \
             larger batch or image"
        );
        return Err(Error::shape("batchnorm", problem));
    }

    let mut mean = device.empty(&[channels])?;
    let mut inv_std = device.empty(&[channels])?;
    match mode {
        Mode::Train { momentum } => {
            let mut running = (running_mean, running_var, tracked);
            let out = (&mut mean, &mut inv_std);
            batch_statistics(device, x, processes, out, &mut running, momentum, eps)?;
        }
        Mode::Eval => {
            // This is a copy because a training pass may update the running mean before the
            // backward pass.
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
        // In a group, both are averaged at once.
        let pitch = channels.next_multiple_of(ALIGNMENT);
        let mut both = if processes > 1 { Some(device.empty(&[2, pitch])?) } else { None };
        let part = |index: usize| match &both {
            Some(both) => both.slice(index * pitch, &[channels]),
            None => device.empty(&[channels]),
        };
        let (mut sum, mut product) = (part(0)?, part(1)?);
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
        if let Some(both) = &mut both {
            // The parameters' gradients are averaged later, with all others.
            device.mean_over_group(both)?;
        }
        // Every element is read before it is written, so dx may reuse dy's memory.
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

/// Computes the mean and 1/√(variance + eps) of every channel over the batch of as many `processes`,
/// and updates the running (mean, variance, count).
fn batch_statistics(
    device: &Device,
    x: &Tensor,
    processes: usize,
    (mean, inv_std): (&mut Tensor, &mut Tensor),
    (running_mean, running_var, tracked): &mut (Tensor, Tensor, Option<Tensor>),
    momentum: f64,
    eps: f64,
) -> Result<()> {
    let (rows, channels) = (x.rows(), x.channels());
    let mut parts = parts(rows, channels);
    if processes > 1 {
        // Merging takes all parts to have the same number of rows, except the last.
        parts = (1..=parts).rev().find(|parts| rows.is_multiple_of(*parts)).unwrap_or(1);
    }
    let mut means = device.empty(&[parts, channels])?;
    let mut deviations = device.empty(&[parts, channels])?;
    let blocks = lanes(Grid::blocks(parts), channels);
    kernels::BatchnormPartial { x, means: &mut means, deviations: &mut deviations, rows, channels }
        .launch(device, blocks)?;
    if processes > 1 {
        (means, deviations) = (device.gather(&means)?, device.gather(&deviations)?);
    }
    let (parts, rows) = (parts * processes, rows * processes);
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

/// Returns the number of splits over which rows are summed: enough to fill a device, and small
/// enough for a split to stay in cache between two passes. It depends only on the shape, so the
/// summation order is the same on every device.
fn parts(rows: usize, channels: usize) -> usize {
    let for_cache = (rows * channels).div_ceil(PART_ELEMENTS).clamp(1, 1024).min(rows);
    for_cache.max(row_parts(rows))
}
