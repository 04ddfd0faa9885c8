//! Layer norm, alone or fused with the residual connection before it.

use crate::device::constants::group::MAX_GROUPS;
use crate::device::group::Slots;
use crate::device::{Device, kernels};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The parameters of a layer norm.
#[derive(Clone)]
pub struct Norm {
    /// The scale γ.
    pub weight: Param,
    /// The shift β.
    pub bias: Param,
    /// The term added to the variance.
    pub eps: f64,
}

/// Stochastic depth of one residual branch (Huang et al. 2016): the branch of a sample is dropped
/// with probability `rate` and otherwise scaled by 1/(1 - rate).
#[derive(Clone)]
pub struct DropPath {
    /// The probability of dropping the branch.
    pub rate: f64,
    /// A u64 on the device, drawn anew in every step.
    pub key: Tensor,
    /// The random stream, which distinguishes this branch and pass from all others of the step.
    pub stream: usize,
    /// The slots of the samples. A batch of several passes has them once for each.
    pub slots: Slots,
}

/// Normalizes a residual stream x: …,C over its channels. The result has the storage type.
pub fn layernorm(tape: &Tape, x: &Tensor, norm: &Norm) -> Result<Tensor> {
    single(tape, x, norm, false)
}

/// Normalizes like [`layernorm`], with a result in the compute type that starts a residual stream.
pub fn layernorm_stream(tape: &Tape, x: &Tensor, norm: &Norm) -> Result<Tensor> {
    single(tape, x, norm, true)
}

/// Returns `s = x + drop_path(branch)` and `layernorm(s)`. x: B,…,C.
///
/// # Errors
/// Returns a shape error if `x` and `branch` differ in size.
pub fn add_layernorm(
    tape: &Tape,
    x: &Tensor,
    branch: &Tensor,
    drop: Option<DropPath>,
    norm: &Norm,
) -> Result<(Tensor, Tensor)> {
    if x.len() != branch.len() {
        let problem = format!("stream {x:?} and branch {branch:?} differ in size");
        return Err(Error::shape("add_layernorm", problem));
    }
    let device = tape.device();
    let mut sum = device.empty(x.shape())?;
    let mut y = device.alloc(x.shape(), device.operand())?;
    let stats = forward(
        tape,
        x,
        Some((branch, &drop)),
        norm,
        &mut Outputs { sum: Some(&mut sum), y: Some(&mut y), wide: None },
    )?;
    let (s, norm) = (sum.clone(), norm.clone());
    let (x_slot, branch_slot) = (x.slot.clone(), branch.slot.clone());
    let [sum, y] = tape.record_all([sum, y], move |gradients, mut arrived| {
        let device = gradients.device().clone();
        let (dy, ds) = (arrived.pop().flatten(), arrived.pop().flatten());
        let dy = match dy {
            Some(dy) => dy,
            None => device.zeros(s.shape(), device.operand())?,
        };
        // Stream and branch share one gradient if it is neither scaled nor cast.
        let mut dbranch = match drop.is_some() || device.operand() != device.real() {
            true => Some(device.alloc(s.shape(), device.operand())?),
            false => None,
        };
        let branch = Some((dbranch.as_mut(), &drop));
        let dx = backward(&device, &s, &norm, &stats, Gradient::Operand(&dy), ds, branch)?;
        gradients.give(&branch_slot, dbranch.unwrap_or_else(|| dx.clone()))?;
        gradients.give(&x_slot, dx)
    });
    Ok((sum, y))
}

fn single(tape: &Tape, x: &Tensor, norm: &Norm, stream: bool) -> Result<Tensor> {
    let device = tape.device();
    let mut y = device.alloc(x.shape(), if stream { device.real() } else { device.operand() })?;
    let mut outputs = Outputs { sum: None, y: None, wide: None };
    *(if stream { &mut outputs.wide } else { &mut outputs.y }) = Some(&mut y);
    let stats = forward(tape, x, None, norm, &mut outputs)?;
    let (x, norm) = (x.clone(), norm.clone());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        let dy = if stream { Gradient::Real(&dy) } else { Gradient::Operand(&dy) };
        let dx = backward(&device, &x, &norm, &stats, dy, None, None)?;
        gradients.give(&x.slot, dx)
    }))
}

/// The outputs of the forward kernel: the sum, and the norm in the storage type (`y`) or the
/// compute type (`wide`).
struct Outputs<'a> {
    sum: Option<&'a mut Tensor>,
    y: Option<&'a mut Tensor>,
    wide: Option<&'a mut Tensor>,
}

/// The gradient of the norm's output, in the storage type or the compute type.
enum Gradient<'a> {
    Operand(&'a Tensor),
    Real(&'a Tensor),
}

/// Returns the statistics of each row, or an empty tensor if nothing is recorded.
fn forward(
    tape: &Tape,
    x: &Tensor,
    branch: Option<(&Tensor, &Option<DropPath>)>,
    norm: &Norm,
    outputs: &mut Outputs,
) -> Result<Tensor> {
    let device = tape.device();
    let (rows, channels) = (x.rows(), x.channels());
    if norm.weight.value.len() != channels {
        let problem = format!("{x:?} normalized with {:?}", norm.weight.value);
        return Err(Error::shape("layernorm", problem));
    }
    let recording = tape.is_recording();
    let mut stats = device.empty(&[if recording { rows } else { 0 }, 2])?;
    let drop = branch.and_then(|(_, drop)| drop.as_ref());
    let Slots { first, count, all } = slots(drop);
    kernels::LayernormForward {
        x,
        branch: branch.map(|(branch, _)| branch),
        key: drop.map(|drop| &drop.key),
        gamma: &norm.weight.value,
        beta: &norm.bias.value,
        sum: outputs.sum.as_deref_mut(),
        y: outputs.y.as_deref_mut(),
        wide: outputs.wide.as_deref_mut(),
        stats: recording.then_some(&mut stats),
        stream: drop.map_or(0, |drop| drop.stream),
        rate: drop.map_or(0.0, |drop| drop.rate),
        eps: norm.eps,
        sample_rows: sample_rows(x),
        first_slot: first,
        slots: count,
        all_slots: all,
        rows,
        channels,
    }
    .launch(device, device.group_rows(rows, 4 * channels))?;
    Ok(stats)
}

/// Returns the slots of the samples; any, if nothing is dropped.
fn slots(drop: Option<&DropPath>) -> Slots {
    drop.map_or(Slots::whole(1), |drop| drop.slots)
}

/// Returns the number of rows per sample. x: B,…,C.
fn sample_rows(x: &Tensor) -> usize {
    (x.rows() / x.dim(0).max(1)).max(1)
}

/// Returns the gradient of the stream before the norm, including the gradient `ds` that arrived
/// along the stream, and accumulates the parameters' gradients. `branch` receives the gradient of
/// the residual branch if it differs.
fn backward(
    device: &Device,
    s: &Tensor,
    norm: &Norm,
    stats: &Tensor,
    dy: Gradient,
    ds: Option<Tensor>,
    branch: Option<(Option<&mut Tensor>, &Option<DropPath>)>,
) -> Result<Tensor> {
    let (rows, channels) = (s.rows(), s.channels());
    let shared = MAX_GROUPS * 2 * channels * device.real().bytes();
    let grid = device.group_parts(rows).shared(shared);
    let parts = grid.blocks as usize;
    let mut partial = device.empty(&[parts, 2, channels])?;
    let (narrow, wide) = match dy {
        Gradient::Operand(dy) => (Some(dy), None),
        Gradient::Real(dy) => (None, Some(dy)),
    };
    // Every element of `ds` is read before it is written, so its memory is reused if it is not
    // shared.
    let mut dx = match &ds {
        Some(ds) if ds.is_unique() => ds.clone(),
        _ => device.empty(s.shape())?,
    };
    let (dbranch, drop) = branch.map_or((None, None), |(to, drop)| (to, drop.as_ref()));
    let Slots { first, count, all } = slots(drop);
    kernels::LayernormBackward {
        s,
        dy: narrow,
        dwide: wide,
        ds: ds.as_ref(),
        key: drop.map(|drop| &drop.key),
        gamma: &norm.weight.value,
        stats,
        dx: &mut dx,
        dbranch,
        partial: &mut partial,
        stream: drop.map_or(0, |drop| drop.stream),
        rate: drop.map_or(0.0, |drop| drop.rate),
        sample_rows: sample_rows(s),
        first_slot: first,
        slots: count,
        all_slots: all,
        rows,
        channels,
    }
    .launch(device, grid)?;
    if let (Some(mut dgamma), Some(mut dbeta)) = (norm.weight.grad.clone(), norm.bias.grad.clone())
    {
        let grid = device.group_rows(channels, 2 * parts).shared(shared);
        kernels::LayernormWeights {
            partial: &partial,
            dgamma: &mut dgamma,
            dbeta: &mut dbeta,
            parts,
            channels,
        }
        .launch(device, grid)?;
    }
    Ok(dx)
}
