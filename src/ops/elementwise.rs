//! Elementwise ops without a gradient: fills, sums, and casts between compute and storage type.

use crate::Result;
use crate::device::{Device, kernels};
use crate::tensor::Tensor;

/// Returns a tensor in the compute type whose elements are all `value`.
pub fn full(device: &Device, shape: &[usize], value: f32) -> Result<Tensor> {
    let mut tensor = device.empty(shape)?;
    fill(device, &mut tensor, value)?;
    Ok(tensor)
}

/// Sets all elements of a tensor in the compute type to `value`.
pub fn fill(device: &Device, y: &mut Tensor, value: f32) -> Result<()> {
    let elements = y.len();
    kernels::Fill { y, value: value.into(), elements }.launch(device, device.elements(elements))
}

/// Computes `sum += x`; both have the storage type, or both the compute type.
pub fn accumulate(device: &Device, x: &Tensor, sum: &mut Tensor) -> Result<()> {
    if x.dtype() != device.operand() {
        return add_scaled(device, x, 1.0, sum);
    }
    let (before, elements) = (sum.clone(), x.len());
    kernels::Add { x, y: &before, z: sum, relu: false, elements }
        .launch(device, device.elements(elements))
}

/// Computes `sum += scale·x`, both in the compute type.
pub fn add_scaled(device: &Device, x: &Tensor, scale: f64, sum: &mut Tensor) -> Result<()> {
    let elements = x.len();
    kernels::AddScaled { x, y: sum, scale, accumulate: true, elements }
        .launch(device, device.elements(elements))
}

/// Computes `y = scale·x`, both in the compute type.
pub fn scaled(device: &Device, x: &Tensor, scale: f64, y: &mut Tensor) -> Result<()> {
    let elements = x.len();
    kernels::AddScaled { x, y, scale, accumulate: false, elements }
        .launch(device, device.elements(elements))
}

/// Returns the tensor in the storage type: the tensor itself, or a cast copy without a gradient.
pub fn to_operand(device: &Device, x: &Tensor) -> Result<Tensor> {
    if x.dtype() == device.operand() {
        return Ok(x.clone());
    }
    let mut y = device.alloc(x.shape(), device.operand())?;
    round(device, x, &mut y)?;
    Ok(y)
}

/// Casts `x` to the storage type into `operand`, which has the same number of elements.
pub fn round(device: &Device, x: &Tensor, operand: &mut Tensor) -> Result<()> {
    let elements = x.len();
    kernels::Downcast { x, y: operand, elements }.launch(device, device.elements(elements))
}

/// Casts `x` from the storage type to the compute type into `y`, or adds it to `y` with
/// `accumulate`.
pub fn to_real(device: &Device, x: &Tensor, y: &mut Tensor, accumulate: bool) -> Result<()> {
    let elements = x.len();
    kernels::Upcast { x, y, accumulate, elements }.launch(device, device.elements(elements))
}
