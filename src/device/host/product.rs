//! Matrix products through the `gemm` crate.

use std::cell::RefCell;
use std::ops::AddAssign;
use std::thread::LocalKey;

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

/// Up to so many rows the crate takes longer to pack `b` than to multiply by it: see [`thin`].
const THIN: usize = 32;

trait Number: Copy + AddAssign + 'static {
    const ZERO: Self;
    const ONE: Self;
    const COLUMNS: &'static LocalKey<RefCell<Vec<Self>>>;
}

thread_local! {
    static COLUMNS_F32: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static COLUMNS_F64: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

impl Number for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const COLUMNS: &'static LocalKey<RefCell<Vec<f32>>> = &COLUMNS_F32;
}
impl Number for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const COLUMNS: &'static LocalKey<RefCell<Vec<f64>>> = &COLUMNS_F64;
}

fn typed<N: Number>(product: &Product, parallelism: gemm::Parallelism) {
    let Product { out, b, .. } = product;
    // Columns of `b` that stand whole in memory, as a linear layer's weight has them.
    match (1..=THIN).contains(&out.rows) && out.col_stride == 1 && b.row_stride == 1 {
        true => thin::<N>(product, parallelism),
        false => multiply::<N>(product, parallelism),
    }
}

/// A few rows by a large matrix: the crate packs its left operand, which is `b` where the rows of `out`
/// are contiguous and `a` where its columns are. So the columns are made contiguous, elsewhere.
fn thin<N: Number>(product: &Product, parallelism: gemm::Parallelism) {
    let Product { out, accumulate, .. } = product;
    N::COLUMNS.with_borrow_mut(|columns| {
        columns.resize((out.rows * out.cols).max(columns.len()), N::ZERO);
        let turned = Matrix {
            address: columns.as_mut_ptr() as u64,
            row_stride: 1,
            col_stride: out.rows as isize,
            ..*out
        };
        multiply::<N>(&Product { out: turned, accumulate: false, ..*product }, parallelism);
        for row in 0..out.rows {
            let first = out.address as *mut N;
            // SAFETY: as in `multiply`; a row's columns are contiguous.
            let to = unsafe {
                std::slice::from_raw_parts_mut(
                    first.offset(row as isize * out.row_stride),
                    out.cols,
                )
            };
            for (to, column) in to.iter_mut().zip(columns.chunks_exact(out.rows)) {
                match accumulate {
                    true => *to += column[row],
                    false => *to = column[row],
                }
            }
        }
    });
}

fn multiply<N: Number>(product: &Product, parallelism: gemm::Parallelism) {
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
