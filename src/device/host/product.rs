//! Matrix products through the `gemm` crate.

use crate::device::backend::{Matrix, Product};
use crate::tensor::DType;
use crate::{Error, Result};

pub(super) fn product(product: &Product, parallelism: gemm::Parallelism) -> Result<()> {
    match product.out.dtype {
        DType::F32 => typed::<f32>(product, parallelism),
        DType::F64 => typed::<f64>(product, parallelism),
        other => return Err(Error::device(format!("no matrix product for {other:?}"))),
    }
    Ok(())
}

trait Number: Copy + 'static {
    const ONE: Self;
}
impl Number for f32 {
    const ONE: f32 = 1.0;
}
impl Number for f64 {
    const ONE: f64 = 1.0;
}

fn typed<N: Number>(product: &Product, parallelism: gemm::Parallelism) {
    let Product { out, a, b, accumulate } = product;
    let at = |m: &Matrix| m.address as *mut N;
    // SAFETY: shapes were checked by `Device::product`; the matrices are views of live tensors,
    // and the output overlaps neither operand. `alpha` scales the destination, `beta` the product.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            a.cols,
            at(out),
            out.col_stride,
            out.row_stride,
            *accumulate,
            at(a),
            a.col_stride,
            a.row_stride,
            at(b),
            b.col_stride,
            b.row_stride,
            N::ONE,
            N::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}
