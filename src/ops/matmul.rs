//! Matmuls, optionally with a bias or with the row sums for a bias gradient as an epilogue.

use crate::device::{Device, LibraryOp, Matmul, Matrix, kernels};
use crate::params::Param;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::elementwise::add_scaled;

/// Computes `out = a·b`, or `out += a·b` with `accumulate`. The operands have the same type; `out`
/// has that type or the compute type.
///
/// # Errors
/// Returns a shape error if the shapes do not match, or a device error if no algorithm supports the
/// matmul.
pub fn matmul(
    device: &Device,
    out: &mut Tensor,
    a: Matrix,
    b: Matrix,
    accumulate: bool,
) -> Result<()> {
    let product = Matmul::plain(Matrix::of(out), a, b, accumulate);
    compute(device, product)?.ok_or_else(|| LibraryOp::Matmul(product).refused())
}

/// Computes `out = a·b + bias`, with the bias added to every row, as one matmul with bias epilogue
/// where the device supports it.
///
/// # Errors
/// Returns a shape error if the shapes do not match, or a device error if no algorithm supports the
/// matmul.
pub fn matmul_with_bias(
    device: &Device,
    out: &mut Tensor,
    a: Matrix,
    b: Matrix,
    bias: Option<&Param>,
) -> Result<()> {
    let Some(bias) = bias else { return matmul(device, out, a, b, false) };
    let stored = bias.stored_as(device, out.dtype())?;
    if stored.len() != out.channels() || stored.dtype() != out.dtype() {
        return Err(Error::shape("matmul", format!("a bias {stored:?} for {out:?}")));
    }
    let plain = Matmul::plain(Matrix::of(out), a, b, false);
    match compute(device, Matmul { bias: Some(stored.address()), ..plain })? {
        Some(()) => Ok(()),
        None => {
            fill_rows(device, &bias.value, out)?;
            matmul(device, out, a, b, true)
        }
    }
}

/// Computes `out += a·b` and adds the row sums of a to `sums`; both results have the compute type.
/// Returns `false` without doing anything if the device has no such matmul.
pub fn matmul_with_row_sums(
    device: &Device,
    out: &mut Tensor,
    a: Matrix,
    b: Matrix,
    sums: &mut Tensor,
) -> Result<bool> {
    let partial = device.empty(&[a.rows])?;
    let (out, row_sums) = (Matrix::of(out), Some(partial.address()));
    let product = Matmul { row_sums, ..Matmul::plain(out, a, b, true) };
    if compute(device, product)?.is_none() {
        return Ok(false);
    }
    add_scaled(device, &partial, 1.0, sums)?;
    Ok(true)
}

/// Sets every row of `y` (storage or compute type) to the bias, so that a matmul can accumulate
/// onto it.
pub(super) fn fill_rows(device: &Device, bias: &Tensor, y: &mut Tensor) -> Result<()> {
    let (rows, channels) = (y.rows(), y.channels());
    let (y, wide) = if y.dtype() == device.operand() { (Some(y), None) } else { (None, Some(y)) };
    kernels::FillRows { bias, y, wide, rows, channels }.launch(device, device.rows(rows, channels))
}

/// Runs the matmul, or returns `None` without doing anything if the device does not support it.
fn compute(device: &Device, product: Matmul) -> Result<Option<()>> {
    let Matmul { out, a, b, .. } = product;
    if a.rows != out.rows || b.cols != out.cols || a.cols != b.rows || a.dtype != b.dtype {
        let shape = |m: &Matrix| format!("{}x{}", m.rows, m.cols);
        let problem = format!("{} times {} into {}", shape(&a), shape(&b), shape(&out));
        return Err(Error::shape("matmul", problem));
    }
    if out.rows == 0 || out.cols == 0 {
        return Ok(Some(()));
    }
    device.compute(&LibraryOp::Matmul(product))
}
