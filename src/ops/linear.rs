//! Fully connected layers, which also implement 1×1 convolutions.

use crate::device::constants::columns::COLUMN_GROUP;
use crate::device::{Device, Grid, MatrixView, kernels};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::elementwise::to_operand;
use super::matmul::{matmul, matmul_with_bias, matmul_with_row_sums};

/// Returns `x·wᵀ + b` in the storage type, …,K. x: …,C; w: K,C (or K,1,1,C); b: K.
///
/// # Errors
/// Returns a shape error if the shapes do not match.
pub fn linear(tape: &Tape, x: &Tensor, w: &Param, b: Option<&Param>) -> Result<Tensor> {
    linear_into(tape, x, w, b, tape.device().operand())
}

/// Computes [`linear`] with an output in the compute type, as logits and norms need it.
///
/// # Errors
/// Returns the same errors as [`linear`].
pub fn linear_wide(tape: &Tape, x: &Tensor, w: &Param, b: Option<&Param>) -> Result<Tensor> {
    linear_into(tape, x, w, b, tape.device().real())
}

pub(super) fn linear_into(
    tape: &Tape,
    x: &Tensor,
    w: &Param,
    b: Option<&Param>,
    dtype: DType,
) -> Result<Tensor> {
    let device = tape.device();
    let channels = x.channels();
    let filters = w.value.dim(0);
    if w.value.len() != filters * channels {
        let problem = format!("input {x:?} does not match weights {:?}", w.value);
        return Err(Error::shape("linear", problem));
    }
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = filters;
    }
    let mut y = device.alloc(&shape, dtype)?;
    let weights = w.operand(device)?;
    let matrix = MatrixView::shaped(&weights, filters, channels)?;
    matmul_with_bias(device, &mut y, MatrixView::of(x), matrix.t(), b)?;

    let (x, dw, db) = (x.clone(), w.grad.clone(), b.and_then(|b| b.grad.clone()));
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        let dy = to_operand(&device, &dy)?;
        parameter_gradients(&device, &dy, &x, dw, db)?;
        let (dy, matrix) = (MatrixView::of(&dy), MatrixView::shaped(&weights, filters, channels)?);
        gradients.write(&x.slot, |dx, accumulate| matmul(&device, dx, dy, matrix, accumulate))
    }))
}

/// Computes `dw += dyᵀ·x` and adds the column sums of dy to `db`, as one matmul with bias-gradient
/// epilogue where the device supports it and it is not slower. dy: …,K; x: …,C; dw: K,C.
pub(super) fn parameter_gradients(
    device: &Device,
    dy: &Tensor,
    x: &Tensor,
    dw: Option<Tensor>,
    db: Option<Tensor>,
) -> Result<()> {
    let dw = dw.map(|dw| dw.reshape(&[dy.channels(), x.channels()])).transpose()?;
    let (rows, x) = (MatrixView::of(dy).t(), MatrixView::of(x));
    match (dw, db) {
        (Some(mut dw), Some(mut db)) => {
            matmul_with_row_sums(device, [&mut dw, &mut db], rows, x, |[dw, db]| {
                matmul(device, dw, rows, x, true)?;
                column_sums(device, dy, db)
            })
        }
        (Some(mut dw), None) => matmul(device, &mut dw, rows, x, true),
        (None, Some(mut db)) => column_sums(device, dy, &mut db),
        (None, None) => Ok(()),
    }
}

/// Computes `sums[c] += Σ_r x[r,c]` in a summation order that depends only on the shape.
pub fn column_sums(device: &Device, x: &Tensor, sums: &mut Tensor) -> Result<()> {
    let (rows, channels) = (x.rows(), x.channels());
    let parts = row_parts(rows);
    let mut partial = device.empty(&[parts, channels])?;
    kernels::ColumnSumsPartial { x, partial: &mut partial, rows, channels }
        .launch(device, Grid::blocks(parts))?;
    kernels::ColumnSumsFinal { partial: &partial, sums, parts, channels }
        .launch(device, over_parts(device, parts, channels))
}

/// Returns the number of splits of a reduction over rows: enough to fill a device, few enough to
/// combine cheaply. It depends only on the shape, so the summation order is the same on every
/// device.
pub fn row_parts(rows: usize) -> usize {
    rows.div_ceil(64).clamp(1, 128)
}

/// Returns the grid that sums `parts` rows of `columns` columns, with a group of columns per block.
/// A block costs at least as much as its threads could add.
pub(super) fn over_parts(device: &Device, parts: usize, columns: usize) -> Grid {
    const THREADS: usize = 128;
    device
        .rows(columns.div_ceil(COLUMN_GROUP), COLUMN_GROUP * parts.max(THREADS))
        .threads(THREADS as u32)
}
