//! Matrix products and convolutions, which a device's libraries compute.

use super::handle::Device;
use super::job::{Convolution, Job, Matrix, Product, no_way};
use super::kernels;
use super::profile::Request;
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What libraries want workspaces to lie at multiples of.
const WORKSPACE_ALIGNMENT: usize = 256;

impl Matrix {
    /// All leading dimensions as rows, channels as columns.
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

    /// `rows`×`cols` of a tensor's memory, from its first element on.
    pub fn shaped(tensor: &Tensor, rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, row_stride: cols as isize, ..Matrix::of(tensor) }
    }
}

impl Device {
    /// `out = a·b`, or `out += a·b` with `accumulate`. The operands are of one type, `out` of theirs
    /// or `real`.
    pub fn product(&self, out: &mut Tensor, a: Matrix, b: Matrix, accumulate: bool) -> Result<()> {
        let product = Product::plain(Matrix::of(out), a, b, accumulate);
        self.multiply(product)?.ok_or_else(|| no_way(&Job::Product(product)))
    }

    /// `out = a·b + bias` in every row, a bias of `out`'s type: as one product where the device has it.
    pub fn product_with_bias(
        &self,
        out: &mut Tensor,
        a: Matrix,
        b: Matrix,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        let Some(bias) = bias else { return self.product(out, a, b, false) };
        if bias.len() != out.channels() || bias.dtype() != out.dtype() {
            return Err(Error::shape("product", format!("a bias {bias:?} for {out:?}")));
        }
        let plain = Product::plain(Matrix::of(out), a, b, false);
        match self.multiply(Product { bias: Some(bias.address()), ..plain })? {
            Some(()) => Ok(()),
            None => {
                self.fill_rows(bias, out)?;
                self.product(out, a, b, true)
            }
        }
    }

    /// Every row becomes `row`, in any type: what is there is copied behind itself, again and again.
    fn fill_rows(&self, row: &Tensor, rows: &mut Tensor) -> Result<()> {
        let (address, bytes) = (rows.address(), rows.bytes());
        let fill = || {
            let mut there = row.bytes().min(bytes);
            self.0.backend.copy(row.address(), address, there)?;
            while there < bytes {
                let more = there.min(bytes - there);
                self.0.backend.copy(address, address + there as u64, more)?;
                there += more;
            }
            Ok(())
        };
        self.timed(|| Request::memory("fill rows", 2 * bytes), fill)
    }

    /// `out += a·b` and `sums += ` the sums of a's rows, all of `real`; false, and nothing done, where
    /// the device has no product that does both.
    pub fn product_with_sums(
        &self,
        out: &mut Tensor,
        a: Matrix,
        b: Matrix,
        sums: &mut Tensor,
    ) -> Result<bool> {
        let partial = self.empty(&[a.rows])?;
        let (out, row_sums) = (Matrix::of(out), Some(partial.address()));
        let product = Product { row_sums, ..Product::plain(out, a, b, true) };
        if self.multiply(product)?.is_none() {
            return Ok(false);
        }
        let elements = a.rows;
        kernels::AddScaled { x: &partial, y: sums, scale: 1.0, accumulate: true, elements }
            .launch(self, self.elements(elements))?;
        Ok(true)
    }

    /// Checks a product's shapes, then computes it. None: see [`compute`](Self::compute).
    fn multiply(&self, product: Product) -> Result<Option<()>> {
        let Product { out, a, b, .. } = product;
        if a.rows != out.rows || b.cols != out.cols || a.cols != b.rows || a.dtype != b.dtype {
            let shape = |m: &Matrix| format!("{}x{}", m.rows, m.cols);
            let problem = format!("{} times {} into {}", shape(&a), shape(&b), shape(&out));
            return Err(Error::shape("product", problem));
        }
        if out.rows == 0 || out.cols == 0 {
            return Ok(Some(()));
        }
        self.compute(&Job::Product(product))
    }

    pub(crate) fn convolution(&self, convolution: &Convolution) -> Result<()> {
        let job = Job::Convolution(*convolution);
        self.compute(&job)?.ok_or_else(|| no_way(&job))
    }

    /// None, and nothing done, where the device does no such job.
    fn compute(&self, job: &Job) -> Result<Option<()>> {
        let Some(bytes) = self.0.backend.workspace(job)? else { return Ok(None) };
        let space = match bytes {
            0 => None,
            _ => Some(self.alloc(&[bytes + WORKSPACE_ALIGNMENT], DType::U8)?),
        };
        let at = |space: &Tensor| space.address().next_multiple_of(WORKSPACE_ALIGNMENT as u64);
        let workspace = space.as_ref().map_or(0, at);
        self.timed(|| Request::job(job), || self.0.backend.compute(job, workspace)).map(Some)
    }
}
