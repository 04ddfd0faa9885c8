//! Library ops: matmuls and convolutions.

use super::backend::Way;
use super::handle::Device;
use super::library_op::{LibraryOp, Matrix};
use super::profile::Request;
use crate::Result;
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Alignment of workspaces in bytes that the libraries expect.
const WORKSPACE_ALIGNMENT: usize = 256;

impl Matrix {
    /// Views a tensor as a matrix: all leading dimensions as rows, channels as columns.
    pub fn of(tensor: &Tensor) -> Matrix {
        Matrix {
            address: tensor.address(),
            dtype: tensor.dtype(),
            rows: tensor.rows(),
            cols: tensor.channels(),
            row_stride: tensor.channels() as isize,
            col_stride: 1,
        }
    }

    /// Views the first `rows`×`cols` elements of a tensor as a matrix.
    pub fn shaped(tensor: &Tensor, rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, row_stride: cols as isize, ..Matrix::of(tensor) }
    }
}

impl Device {
    /// Returns whether the device supports an op with an epilogue, and `fused`, which runs it, is
    /// not slower than `separate`, which computes the same with kernels of its own. Trials of
    /// either are timed once for each shape.
    pub(crate) fn epilogue_pays(
        &self,
        op: &LibraryOp,
        fused: &dyn Fn() -> Result<()>,
        separate: &dyn Fn() -> Result<()>,
    ) -> Result<bool> {
        let backend = &self.0.backend;
        if backend.workspace(op)?.is_none() {
            return Ok(false);
        }
        let ways = [Way { name: "fused", run: fused }, Way { name: "separate", run: separate }];
        // A profile does not see the trials.
        let profile = self.0.profile.take();
        let fastest = backend.fastest(op, &ways);
        self.0.profile.replace(profile);
        Ok(fastest? == 0)
    }

    /// Runs a library op. Returns None, with nothing done, if the device does not support it.
    pub(crate) fn compute(&self, op: &LibraryOp) -> Result<Option<()>> {
        let Some(bytes) = self.0.backend.workspace(op)? else { return Ok(None) };
        let space = match bytes {
            0 => None,
            _ => Some(self.alloc(&[bytes + WORKSPACE_ALIGNMENT], DType::U8)?),
        };
        let at = |space: &Tensor| space.address().next_multiple_of(WORKSPACE_ALIGNMENT as u64);
        let workspace = space.as_ref().map_or(0, at);
        self.timed(|| Request::library_op(op), || self.0.backend.compute(op, workspace)).map(Some)
    }
}
