//! Matmuls, optionally with a bias or with the row sums for a bias gradient as an epilogue.

use crate::device::{ALIGNMENT, Device, LibraryOp, Matmul, MatrixView, kernels};
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
    a: MatrixView,
    b: MatrixView,
    accumulate: bool,
) -> Result<()> {
    matmul_to(device, MatrixView::of(out), a, b, accumulate)
}

/// Computes [`matmul`] into a part of a tensor.
pub(super) fn matmul_to(
    device: &Device,
    out: MatrixView,
    a: MatrixView,
    b: MatrixView,
    accumulate: bool,
) -> Result<()> {
    let product = device.describe_matmul(out, a, b, accumulate)?;
    compute(device, product)?.ok_or_else(|| LibraryOp::Matmul(product).refused())
}

/// Computes `out = a·b + bias`, with the bias added to every row, as one matmul with bias epilogue
/// where the device supports it and it is not slower.
///
/// # Errors
/// Returns a shape error if the shapes do not match, or a device error if no algorithm supports the
/// matmul.
pub fn matmul_with_bias(
    device: &Device,
    out: &mut Tensor,
    a: MatrixView,
    b: MatrixView,
    bias: Option<&Param>,
) -> Result<()> {
    let Some(bias) = bias else { return matmul(device, out, a, b, false) };
    let stored = bias.stored_as(device, out.dtype())?;
    if stored.len() != out.channels() || stored.dtype() != out.dtype() {
        return Err(Error::shape("matmul", format!("a bias {stored:?} for {out:?}")));
    }
    device.require_own("matmul", stored.view())?;
    let plain = device.describe_matmul(MatrixView::of(out), a, b, false)?;
    let product = Matmul { bias: Some(stored.address()), ..plain };
    let separate = |out: &mut Tensor| {
        fill_rows(device, &bias.value, out)?;
        matmul(device, out, a, b, true)
    };
    // Trials may write to `out`, which is overwritten.
    let fused = || compute(device, product).map(drop);
    match epilogue_pays(device, product, &fused, &|| separate(&mut out.clone()))? {
        true => fused(),
        false => separate(out),
    }
}

/// Computes `out += a·b` and adds the row sums of a to `sums`, as one matmul with bias-gradient
/// epilogue where the device supports it and it is not slower than `separate`, which computes the
/// same on other tensors. Both results have the compute type.
pub(super) fn matmul_with_row_sums(
    device: &Device,
    [out, sums]: [&mut Tensor; 2],
    a: MatrixView,
    b: MatrixView,
    separate: impl Fn([&mut Tensor; 2]) -> Result<()>,
) -> Result<()> {
    let product = |out: &Tensor, partial: &Tensor| -> Result<Matmul> {
        let row_sums = Some(partial.address());
        Ok(Matmul { row_sums, ..device.describe_matmul(MatrixView::of(out), a, b, true)? })
    };
    let partial = device.empty(&[a.rows()])?;
    let fused = |[out, sums]: [&mut Tensor; 2]| {
        compute(device, product(out, &partial)?)?;
        add_scaled(device, &partial, 1.0, sums)
    };
    // Both results accumulate, so trials have some of their own.
    let on_scratch = |way: &dyn Fn([&mut Tensor; 2]) -> Result<()>| {
        let (mut out, mut sums) = (like(device, out)?, like(device, sums)?);
        way([&mut out, &mut sums])
    };
    let ways = (|| on_scratch(&fused), || on_scratch(&separate));
    match epilogue_pays(device, product(out, &partial)?, &ways.0, &ways.1)? {
        true => fused([out, sums]),
        false => separate([out, sums]),
    }
}

/// Allocates a tensor like another one, at an address with the same alignment.
fn like(device: &Device, tensor: &Tensor) -> Result<Tensor> {
    let size = tensor.dtype().bytes();
    let gap = tensor.address() as usize % ALIGNMENT / size;
    let space = device.alloc(&[tensor.len() + gap], tensor.dtype())?;
    space.slice(gap, tensor.shape())
}

/// Returns whether the device supports a matmul with an epilogue, and `fused`, which runs it, is not
/// slower than `separate`.
fn epilogue_pays(
    device: &Device,
    product: Matmul,
    fused: &dyn Fn() -> Result<()>,
    separate: &dyn Fn() -> Result<()>,
) -> Result<bool> {
    let Matmul { out, .. } = product;
    if out.rows == 0 || out.cols == 0 {
        return Ok(true);
    }
    device.epilogue_pays(&LibraryOp::Matmul(product), fused, separate)
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
    let Matmul { out, .. } = product;
    if out.rows == 0 || out.cols == 0 {
        return Ok(Some(()));
    }
    device.compute(&LibraryOp::Matmul(product))
}
