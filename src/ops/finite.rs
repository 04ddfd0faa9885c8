//! The check for non-finite values that guards the commit of a step.

use crate::Result;
use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};

/// Sets `flag` (i32, one element) to 1 if `x` (compute type, any shape) holds a value that is not
/// finite. It never clears the flag.
pub fn flag_not_finite(device: &Device, x: &Tensor, flag: &mut Tensor) -> Result<()> {
    let parts = x.len().div_ceil(16 << 10).clamp(1, 1024);
    let mut bad = device.alloc(&[parts], DType::I32)?;
    kernels::NotFinitePartial { x, bad: &mut bad, elements: x.len() }
        .launch(device, Grid::blocks(parts))?;
    kernels::NotFiniteFinal { bad: &bad, flag, parts }.launch(device, Grid::blocks(1))
}
