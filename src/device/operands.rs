//! Tensors in the type that products and attention take.

use super::handle::Device;
use super::kernels;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Device {
    /// A tensor as operands are stored: itself, or a rounded copy. No gradient.
    pub fn to_operand(&self, x: &Tensor) -> Result<Tensor> {
        if x.dtype() == self.operand() {
            return Ok(x.clone());
        }
        let mut y = self.alloc(x.shape(), self.operand())?;
        self.round(x, &mut y)?;
        Ok(y)
    }

    /// Replaces an operand's content by `x`, rounded; as many elements.
    pub fn round(&self, x: &Tensor, operand: &mut Tensor) -> Result<()> {
        if x.len() != operand.len() {
            return Err(Error::shape("round", format!("{x:?} into {operand:?}")));
        }
        kernels::narrow(self, self.elements(x.len()), x, operand, x.len() as i64)
    }
}
