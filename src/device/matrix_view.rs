//! Tensors, or parts of them, as the operands of matmuls.

use std::marker::PhantomData;

use super::library_op::Matrix;
use super::view::DeviceId;
use crate::dtype::DType;
use crate::tensor::{Tensor, elements_of};
use crate::{Error, Result};

/// A strided view of a tensor or of a part of it as a matrix. It borrows the tensor and never
/// reaches beyond it.
#[derive(Clone, Copy)]
pub struct MatrixView<'a> {
    matrix: Matrix,
    device: DeviceId,
    tensor: PhantomData<&'a Tensor>,
}

impl<'a> MatrixView<'a> {
    /// Views a tensor as a matrix: all leading dimensions as rows, channels as columns.
    pub fn of(tensor: &'a Tensor) -> MatrixView<'a> {
        let (rows, cols) = (tensor.rows(), tensor.channels());
        Self::with_size(tensor, rows, cols)
    }

    /// Views the first `rows`×`cols` elements of a tensor as a matrix.
    ///
    /// # Errors
    /// Returns a shape error if the tensor has fewer elements.
    pub fn shaped(tensor: &'a Tensor, rows: usize, cols: usize) -> Result<MatrixView<'a>> {
        if elements_of(&[rows, cols]).is_none_or(|elements| elements > tensor.len()) {
            return Err(Error::shape("matmul", format!("{rows}x{cols} elements of {tensor:?}")));
        }
        Ok(Self::with_size(tensor, rows, cols))
    }

    fn with_size(tensor: &'a Tensor, rows: usize, cols: usize) -> MatrixView<'a> {
        let matrix = Matrix::contiguous(tensor.address(), tensor.dtype(), rows, cols);
        MatrixView { matrix, device: tensor.device_id(), tensor: PhantomData }
    }

    /// Returns the transposed view.
    pub fn t(self) -> MatrixView<'a> {
        MatrixView { matrix: self.matrix.t(), ..self }
    }

    /// Returns `count` columns, from column `first` on.
    ///
    /// # Errors
    /// Returns a shape error if the matrix has fewer columns.
    pub fn columns(self, (first, count): (usize, usize)) -> Result<MatrixView<'a>> {
        if first.checked_add(count).is_none_or(|end| end > self.matrix.cols) {
            let problem = format!("{count} columns from {first} on of {}", self.matrix.cols);
            return Err(Error::shape("matmul", problem));
        }
        Ok(MatrixView { matrix: self.matrix.columns((first, count)), ..self })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// Returns the number of columns.
    pub fn cols(&self) -> usize {
        self.matrix.cols
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.matrix.dtype
    }

    /// Returns the address, size and strides that a library takes.
    pub(crate) fn matrix(&self) -> Matrix {
        self.matrix
    }

    pub(super) fn device(&self) -> DeviceId {
        self.device
    }
}
