//! Matmuls through the `gemm` crate.

use std::cell::RefCell;
use std::ops::AddAssign;
use std::thread::LocalKey;

use rayon::prelude::*;

use crate::device::library_op::{Matmul, Matrix};
use crate::dtype::DType;
use crate::{Error, Result};

pub(super) fn matmul(matmul: &Matmul, parallelism: gemm::Parallelism) -> Result<()> {
    match (matmul.a.dtype, matmul.out.dtype) {
        (DType::F32, DType::F32) => typed::<f32>(matmul, parallelism),
        (DType::F64, DType::F64) => typed::<f64>(matmul, parallelism),
        (from, to) => {
            return Err(Error::device(format!("no matrix product of {from:?} into {to:?}")));
        }
    }
    Ok(())
}

/// For matmuls that are themselves pieces of parallel work.
pub(super) const SERIAL: gemm::Parallelism = gemm::Parallelism::None;
/// Number of rows up to which the crate takes longer to pack `b` than to multiply by it: see
/// [`thin`].
const THIN: usize = 32;
/// Number of rows that are worth handing to another core to fill.
const ROWS_PER_TASK: usize = 64;

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

fn typed<N: Number>(matmul: &Matmul, parallelism: gemm::Parallelism) {
    let Matmul { out, a, b, bias, row_sums, .. } = matmul;
    if let Some(sums) = row_sums {
        sum_rows::<N>(a, *sums as *mut N);
    }
    let onto_bias = Matmul { accumulate: true, ..*matmul };
    let matmul = match bias {
        Some(bias) => {
            fill_rows::<N>(out, *bias);
            &onto_bias
        }
        None => matmul,
    };
    // The columns of `b` are contiguous, as in a linear layer's weight.
    match (1..=THIN).contains(&out.rows) && out.col_stride == 1 && b.row_stride == 1 {
        true => thin::<N>(matmul, parallelism),
        false => multiply::<N>(matmul, parallelism),
    }
}

/// Sets every row of `out` to the bias. The elements of a row must be contiguous.
fn fill_rows<N: Number>(out: &Matrix, bias: u64) {
    let rows = (0..out.rows).into_par_iter().with_min_len(ROWS_PER_TASK);
    rows.for_each(|row| {
        let start = row as isize * out.row_stride;
        // SAFETY: the range is a row of the matrix, which is a view of a live tensor, and the bias
        // has an element for every column.
        unsafe {
            let to = (out.address as *mut N).offset(start);
            std::ptr::copy_nonoverlapping(bias as *const N, to, out.cols);
        }
    });
}

/// Sums each row, in order of its elements.
fn sum_rows<N: Number>(a: &Matrix, sums: *mut N) {
    for row in 0..a.rows {
        let mut sum = N::ZERO;
        for col in 0..a.cols {
            let at = row as isize * a.row_stride + col as isize * a.col_stride;
            // SAFETY: the element is inside the matrix, which is a view of a live tensor.
            sum += unsafe { *(a.address as *const N).offset(at) };
        }
        // SAFETY: `sums` has one element for each row.
        unsafe { *sums.add(row) = sum };
    }
}

/// Multiplies a few rows by a large matrix. The crate packs its left operand, which is `b` if the
/// rows of `out` are contiguous and `a` if its columns are. The result is therefore computed in a
/// temporary with contiguous columns.
fn thin<N: Number>(matmul: &Matmul, parallelism: gemm::Parallelism) {
    let Matmul { out, accumulate, .. } = matmul;
    N::COLUMNS.with_borrow_mut(|columns| {
        columns.resize((out.rows * out.cols).max(columns.len()), N::ZERO);
        let turned = Matrix {
            address: columns.as_mut_ptr() as u64,
            row_stride: 1,
            col_stride: out.rows as isize,
            ..*out
        };
        multiply::<N>(&Matmul { out: turned, accumulate: false, ..*matmul }, parallelism);
        for row in 0..out.rows {
            let first = out.address as *mut N;
            // SAFETY: `out` is a view of a live tensor that no operand overlaps, and the elements
            // of a row are contiguous.
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

fn multiply<N: Number>(matmul: &Matmul, parallelism: gemm::Parallelism) {
    let Matmul { out, a, b, accumulate, .. } = matmul;
    let at = |m: &Matrix| m.address as *mut N;
    // SAFETY: the ops that build the descriptor checked its shapes; the matrices are views of live
    // tensors, and the output overlaps neither operand. In this crate `alpha` scales the
    // destination and `beta` the product.
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
