//! Library ops: matmuls and convolutions.

use super::backend::Way;
use super::handle::Device;
use super::library_op::{LibraryOp, Matmul, Matrix};
use super::matrix_view::MatrixView;
use super::profile::Request;
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Alignment of workspaces in bytes that the libraries expect.
const WORKSPACE_ALIGNMENT: usize = 256;

impl Device {
    /// Describes the matmul `out = a·b`, or `out += a·b` with `accumulate`.
    ///
    /// # Errors
    /// Returns a shape error if sizes or types do not match, a matrix is on another device, or the
    /// output overlaps an operand.
    pub(crate) fn describe_matmul(
        &self,
        out: MatrixView,
        a: MatrixView,
        b: MatrixView,
        accumulate: bool,
    ) -> Result<Matmul> {
        let wrong = |problem: String| Err(Error::shape("matmul", problem));
        if [out, a, b].iter().any(|matrix| matrix.device() != self.id()) {
            return wrong("a matrix is in the memory of another device".into());
        }
        let plain = Matmul::plain(out.matrix(), a.matrix(), b.matrix(), accumulate);
        let Matmul { out, a, b, .. } = &plain;
        if a.rows != out.rows || b.cols != out.cols || a.cols != b.rows || a.dtype != b.dtype {
            let shape = |m: &Matrix| format!("{}x{} {:?}", m.rows, m.cols, m.dtype);
            return wrong(format!("{} times {} into {}", shape(a), shape(b), shape(out)));
        }
        let range = |m: &Matrix| m.address..m.address + (m.span() * m.dtype.bytes()) as u64;
        let written = range(out);
        let overlaps =
            |read: std::ops::Range<u64>| read.start < written.end && written.start < read.end;
        if overlaps(range(a)) || overlaps(range(b)) {
            return wrong("the output is part of an operand".into());
        }
        Ok(plain)
    }

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
