//! Elementwise work without a gradient: fills, sums, and numbers as operands of products are stored.

use crate::Result;
use crate::device::{Device, kernels};
use crate::tensor::Tensor;

/// A tensor of `real` whose elements are all `value`.
pub fn full(device: &Device, shape: &[usize], value: f32) -> Result<Tensor> {
    let mut tensor = device.empty(shape)?;
    fill(device, &mut tensor, value)?;
    Ok(tensor)
}

/// Replaces all elements of a `real` tensor.
pub fn fill(device: &Device, y: &mut Tensor, value: f32) -> Result<()> {
    let elements = y.len();
    kernels::Fill { y, value: value.into(), elements }.launch(device, device.elements(elements))
}

/// `sum += x`, of one type: operands, or `real`.
pub fn accumulate(device: &Device, x: &Tensor, sum: &mut Tensor) -> Result<()> {
    if x.dtype() != device.operand() {
        return add_scaled(device, x, 1.0, sum);
    }
    let (before, elements) = (sum.clone(), x.len());
    kernels::Add { x, y: &before, z: sum, relu: false, elements }
        .launch(device, device.elements(elements))
}

/// `sum += scale·x`, both `real`.
pub fn add_scaled(device: &Device, x: &Tensor, scale: f64, sum: &mut Tensor) -> Result<()> {
    let elements = x.len();
    kernels::AddScaled { x, y: sum, scale, accumulate: true, elements }
        .launch(device, device.elements(elements))
}

/// `y = scale·x`, both `real`.
pub fn scaled(device: &Device, x: &Tensor, scale: f64, y: &mut Tensor) -> Result<()> {
    let elements = x.len();
    kernels::AddScaled { x, y, scale, accumulate: false, elements }
        .launch(device, device.elements(elements))
}

/// A tensor as operands are stored: itself, or a rounded copy. No gradient.
pub fn to_operand(device: &Device, x: &Tensor) -> Result<Tensor> {
    if x.dtype() == device.operand() {
        return Ok(x.clone());
    }
    let mut y = device.alloc(x.shape(), device.operand())?;
    round(device, x, &mut y)?;
    Ok(y)
}

/// Replaces an operand's content by `x`, rounded; as many elements.
pub fn round(device: &Device, x: &Tensor, operand: &mut Tensor) -> Result<()> {
    let elements = x.len();
    kernels::Narrow { x, y: operand, elements }.launch(device, device.elements(elements))
}

/// An operand as `real`; added to what is there with `accumulate`.
pub fn to_real(device: &Device, x: &Tensor, y: &mut Tensor, accumulate: bool) -> Result<()> {
    let elements = x.len();
    kernels::Widen { x, y, accumulate, elements }.launch(device, device.elements(elements))
}
