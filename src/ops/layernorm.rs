//! Layer norm, alone or fused with the residual connection before it.

use crate::device::{Device, Grid, kernels};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::linear::row_parts;

/// Scale, shift and eps of a norm.
#[derive(Clone)]
pub struct Norm {
    pub weight: Param,
    pub bias: Param,
    pub eps: f64,
}

/// Stochastic depth of one residual branch (Huang et al. 2016): a sample's branch is dropped with
/// probability `rate`, else scaled by 1/(1 - rate).
#[derive(Clone)]
pub struct DropPath {
    pub rate: f64,
    /// One u64 on the device, drawn anew every step.
    pub key: Tensor,
    /// Tells this branch and pass apart from all others of the step.
    pub stream: i64,
}

/// Normalises over channels. x: …,C of the residual stream.
pub fn layernorm(tape: &Tape, x: &Tensor, norm: &Norm) -> Result<Tensor> {
    single(tape, x, norm, false)
}

/// As [`layernorm`], its output starting a residual stream.
pub fn layernorm_stream(tape: &Tape, x: &Tensor, norm: &Norm) -> Result<Tensor> {
    single(tape, x, norm, true)
}

/// `s = x + drop_path(branch)` and `y = layernorm(s)`: (s, y). x: B,…,C.
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
    Ok(tape.record_pair((sum, y), move |gradients, ds, dy| {
        let device = gradients.device().clone();
        let ds = match dy {
            Some(dy) => backward(&device, &s, &norm, &stats, Gradient::Operand(&dy), ds)?,
            None => ds.ok_or_else(|| Error::shape("add_layernorm", "no gradient"))?,
        };
        let dbranch = match &drop {
            Some(drop) => {
                let mut dbranch = device.alloc(ds.shape(), device.operand())?;
                let (rows, c) = (ds.rows(), ds.channels());
                let (key, stream, rate) = (Some(&drop.key), drop.stream, drop.rate);
                let sample = (rows / ds.dim(0)) as i64;
                let grid = device.rows(rows, c);
                let out = &mut dbranch;
                let (rows, c) = (rows as i64, c as i64);
                kernels::drop_path_backward(
                    &device, grid, &ds, key, out, stream, rate, sample, rows, c,
                )?;
                dbranch
            }
            None => device.to_operand(&ds)?,
        };
        gradients.give(&branch_slot, dbranch)?;
        gradients.give(&x_slot, ds)
    }))
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
        let dx = backward(&device, &x, &norm, &stats, dy, None)?;
        gradients.give(&x.slot, dx)
    }))
}

/// Where the forward kernel writes.
struct Outputs<'a> {
    sum: Option<&'a mut Tensor>,
    y: Option<&'a mut Tensor>,
    wide: Option<&'a mut Tensor>,
}

/// The gradient of the norm's output, by type.
enum Gradient<'a> {
    Operand(&'a Tensor),
    Real(&'a Tensor),
}

/// Returns the rows' statistics (an empty tensor when nothing is recorded).
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
        let problem = format!("{x:?} normalised with {:?}", norm.weight.value);
        return Err(Error::shape("layernorm", problem));
    }
    let recording = tape.is_recording();
    let mut stats = device.empty(&[if recording { rows } else { 0 }, 2])?;
    let drop = branch.and_then(|(_, drop)| drop.as_ref());
    kernels::layernorm_forward(
        device,
        device.rows(rows, 4 * channels),
        x,
        branch.map(|(branch, _)| branch),
        drop.map(|drop| &drop.key),
        &norm.weight.value,
        &norm.bias.value,
        outputs.sum.as_deref_mut(),
        outputs.y.as_deref_mut(),
        outputs.wide.as_deref_mut(),
        recording.then_some(&mut stats),
        drop.map_or(0, |drop| drop.stream),
        drop.map_or(0.0, |drop| drop.rate),
        norm.eps,
        (rows / x.dim(0).max(1)).max(1) as i64,
        rows as i64,
        channels as i64,
    )?;
    Ok(stats)
}

/// Gradient of the stream before the norm, what came along it (`ds`) included; parameters' are
/// accumulated.
fn backward(
    device: &Device,
    s: &Tensor,
    norm: &Norm,
    stats: &Tensor,
    dy: Gradient,
    ds: Option<Tensor>,
) -> Result<Tensor> {
    let (rows, channels) = (s.rows(), s.channels());
    let parts = row_parts(rows);
    let mut partial = device.empty(&[parts, 2, channels])?;
    let (narrow, wide) = match dy {
        Gradient::Operand(dy) => (Some(dy), None),
        Gradient::Real(dy) => (None, Some(dy)),
    };
    // Every element of `ds` is read before it is written, so it is reused where nobody shares it.
    let mut dx = match &ds {
        Some(ds) if ds.is_unique() => ds.clone(),
        _ => device.empty(s.shape())?,
    };
    let (r, c) = (rows as i64, channels as i64);
    let (gamma, grid) = (&norm.weight.value, Grid::blocks(parts));
    kernels::layernorm_backward(
        device,
        grid,
        s,
        narrow,
        wide,
        ds.as_ref(),
        gamma,
        stats,
        &mut dx,
        &mut partial,
        r,
        c,
    )?;
    if let (Some(mut dgamma), Some(mut dbeta)) = (norm.weight.grad.clone(), norm.bias.grad.clone())
    {
        let grid = device.elements(channels);
        let parts = parts as i64;
        kernels::layernorm_weights(device, grid, &partial, &mut dgamma, &mut dbeta, parts, c)?;
    }
    Ok(dx)
}
