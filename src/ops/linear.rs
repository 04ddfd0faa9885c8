//! Fully connected layers, which 1×1 convolutions are too.

use crate::device::{Device, Grid, Matrix, kernels};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// `y = x·wᵀ + b`. x: …,C; w: K,C (or K,1,1,C); b: K; y: …,K.
pub fn linear(tape: &Tape, x: &Tensor, w: &Param, b: Option<&Param>) -> Result<Tensor> {
    let device = tape.device();
    let (rows, channels) = (x.rows(), x.channels());
    let filters = w.value.dim(0);
    if w.value.len() != filters * channels {
        let problem = format!("input {x:?} does not fit weights {:?}", w.value);
        return Err(Error::shape("linear", problem));
    }
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = filters;
    }
    let mut y = device.alloc(&shape, x.dtype())?;
    if let Some(b) = b {
        let grid = device.rows(rows, filters);
        kernels::fill_rows(device, grid, &b.value, &mut y, rows as i64, filters as i64)?;
    }
    let weights = move |w: &Param| Matrix::shaped(&w.value, filters, channels);
    device.product(&mut y, Matrix::of(x), weights(w).t(), b.is_some())?;

    let (x, w, b) = (x.clone(), w.clone(), b.cloned());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        let dy_matrix = Matrix::shaped(&dy, rows, filters);
        if let Some(dw) = &w.grad {
            let mut dw = dw.reshape(&[filters, channels])?;
            device.product(&mut dw, dy_matrix.t(), Matrix::of(&x), true)?;
        }
        if let Some(mut db) = b.and_then(|b| b.grad) {
            column_sums(&device, &dy, &mut db)?;
        }
        gradients
            .write(&x.slot, |dx, accumulate| device.product(dx, dy_matrix, weights(&w), accumulate))
    }))
}

/// `sums[c] += Σ_r x[r,c]`, in an order that the shape alone decides.
pub fn column_sums(device: &Device, x: &Tensor, sums: &mut Tensor) -> Result<()> {
    let (rows, channels) = (x.rows(), x.channels());
    let parts = row_parts(rows);
    let mut partial = device.empty(&[parts, channels])?;
    let (r, c) = (rows as i64, channels as i64);
    kernels::column_sums_partial(device, Grid::blocks(parts), x, &mut partial, r, c)?;
    let grid = device.elements(channels);
    kernels::column_sums_final(device, grid, &partial, sums, parts as i64, c)
}

/// Blocks that a reduction over rows is cut into: enough to fill a device, few enough to be cheap
/// to combine. A function of the shape, so that the order of a sum is.
pub fn row_parts(rows: usize) -> usize {
    rows.div_ceil(64).clamp(1, 128)
}
