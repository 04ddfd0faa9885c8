//! Matmuls through the `gemm` crate, in pieces that depend only on the shape, so that the results
//! are the same for any number of threads.

use std::cell::RefCell;
use std::ops::AddAssign;
use std::thread::LocalKey;

use super::denormals::FlushToZero;
use super::tasks::each;
use crate::device::library_op::{Matmul, Matrix};
use crate::dtype::DType;
use crate::{Error, Result};

/// Multiplications that are worth handing to another core.
const PIECE: usize = 1 << 20;
/// Most pieces of a matmul.
const PIECES: usize = 32;
/// Fewest rows, columns and terms of a piece: the crate copies its operands, which fewer
/// multiplications would not outweigh.
const LEAST: [usize; 3] = [128, 128, 1024];
/// Elements of an output that get their bias, and then the product, at a time: they stay in the
/// second-level cache.
const BIAS_ELEMENTS: usize = 64 << 10;
/// Number of rows up to which the crate takes longer to pack `b` than to multiply by it, and number
/// of columns up to which it would pad them to many more: see [`turned`].
const THIN: usize = 32;

/// Computes a matmul on all threads.
pub(super) fn matmul(matmul: &Matmul) -> Result<()> {
    match types(matmul)? {
        DType::F64 => in_pieces::<f64>(matmul),
        _ => in_pieces::<f32>(matmul),
    }
    Ok(())
}

/// Computes a matmul that is itself a piece of parallel work, on this thread.
pub(super) fn serial(matmul: &Matmul) -> Result<()> {
    match types(matmul)? {
        DType::F64 => piece::<f64>(matmul),
        _ => piece::<f32>(matmul),
    }
    Ok(())
}

fn types(matmul: &Matmul) -> Result<DType> {
    match (matmul.a.dtype, matmul.out.dtype) {
        (DType::F32, DType::F32) => Ok(DType::F32),
        (DType::F64, DType::F64) => Ok(DType::F64),
        (from, to) => Err(Error::device(format!("no matrix product of {from:?} into {to:?}"))),
    }
}

trait Number: Copy + AddAssign + Send + Sync + 'static {
    const ZERO: Self;
    const ONE: Self;
    const TURNED: &'static LocalKey<RefCell<Vec<Self>>>;
}

thread_local! {
    static TURNED_F32: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static TURNED_F64: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

impl Number for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const TURNED: &'static LocalKey<RefCell<Vec<f32>>> = &TURNED_F32;
}
impl Number for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const TURNED: &'static LocalKey<RefCell<Vec<f64>>> = &TURNED_F64;
}

/// Splits a matmul by rows, then by columns, then by terms.
fn in_pieces<N: Number>(matmul: &Matmul) {
    let Matmul { out, a, b, bias, row_sums, .. } = matmul;
    if let Some(sums) = row_sums {
        sum_rows::<N>(a, *sums as *mut N);
    }
    let sizes = [out.rows, out.cols, a.cols];
    let mut wanted = (out.rows * out.cols * a.cols / PIECE).clamp(1, PIECES);
    let [rows, cols, terms] = [0, 1, 2].map(|axis| {
        let pieces = wanted.min(sizes[axis] / LEAST[axis]).max(1);
        wanted /= pieces;
        pieces
    });
    // A bias is added once, and what is added to is read once.
    let terms = if bias.is_some() { 1 } else { terms };
    let cut = |axis: usize, pieces: usize, i: usize| {
        let at = |i: usize| sizes[axis] * i / pieces;
        (at(i), at(i + 1) - at(i))
    };
    let part = |task: usize| {
        let (row, col) = (cut(0, rows, task / cols), cut(1, cols, task % cols));
        let (a, b) = (a.rows(row), b.columns(col));
        let out = out.rows(row).columns(col);
        let bias = bias.map(|at| at + (col.0 * size_of::<N>()) as u64);
        Matmul { out, a, b, bias, row_sums: None, ..*matmul }
    };
    if terms == 1 {
        return each(rows * cols, 1, |task| piece::<N>(&part(task)));
    }
    // Each part of the terms is summed by itself, and then the parts in their order.
    let area = out.rows * out.cols;
    let mut sums = vec![N::ZERO; area * terms];
    let base = sums.as_mut_ptr() as usize;
    let sum = |term: usize| Matrix {
        address: (base + term * area * size_of::<N>()) as u64,
        row_stride: out.cols as isize,
        col_stride: 1,
        ..*out
    };
    let tasks = rows * cols * terms;
    each(tasks, 1, |task| {
        let (task, term) = (task / terms, task % terms);
        let range = cut(2, terms, term);
        let (row, col) = (cut(0, rows, task / cols), cut(1, cols, task % cols));
        let Matmul { a, b, .. } = part(task);
        let out = sum(term).rows(row).columns(col);
        piece::<N>(&Matmul::plain(out, a.columns(range), b.rows(range), false));
    });
    let first = out.address as usize;
    each(out.rows, PIECE / 16 / out.cols, |row| {
        let _flushed = FlushToZero::new();
        for col in 0..out.cols {
            let mut total = sums[row * out.cols + col];
            for term in 1..terms {
                total += sums[term * area + row * out.cols + col];
            }
            let at = row as isize * out.row_stride + col as isize * out.col_stride;
            // SAFETY: the element is inside the output, which is a view of a live tensor, and each
            // row is written by one task.
            unsafe {
                let to = (first as *mut N).offset(at);
                match matmul.accumulate {
                    true => *to += total,
                    false => *to = total,
                }
            }
        }
    });
}

/// Computes a piece on this thread.
fn piece<N: Number>(matmul: &Matmul) {
    let _flushed = FlushToZero::new();
    let Matmul { out, a, bias, .. } = matmul;
    let Some(bias) = bias else { return multiply::<N>(matmul) };
    let rows = (BIAS_ELEMENTS / out.cols.max(1)).max(LEAST[0]);
    for first in (0..out.rows).step_by(rows) {
        let range = (first, rows.min(out.rows - first));
        let (out, a) = (out.rows(range), a.rows(range));
        fill_rows::<N>(&out, *bias);
        multiply::<N>(&Matmul { out, a, accumulate: true, bias: None, ..*matmul });
    }
}

/// Sets every row of `out` to the bias. The elements of a row must be contiguous.
fn fill_rows<N: Number>(out: &Matrix, bias: u64) {
    for row in 0..out.rows {
        let start = row as isize * out.row_stride;
        // SAFETY: the range is a row of the matrix, which is a view of a live tensor, and the bias
        // has an element for every column.
        unsafe {
            let to = (out.address as *mut N).offset(start);
            std::ptr::copy_nonoverlapping(bias as *const N, to, out.cols);
        }
    }
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

fn multiply<N: Number>(matmul: &Matmul) {
    let Matmul { out, b, .. } = matmul;
    // The columns of `b` are contiguous, as in a linear layer's weight.
    let few_rows = (1..=THIN).contains(&out.rows) && b.row_stride == 1;
    let few_columns = (1..=THIN).contains(&out.cols) && out.rows > THIN;
    match out.col_stride == 1 && (few_rows || few_columns) {
        true => turned::<N>(matmul),
        false => call::<N>(matmul),
    }
}

/// Multiplies by way of a temporary with contiguous columns. The crate packs its left operand,
/// which is `b` if the rows of `out` are contiguous and `a` if its columns are, and pads the other
/// side of its register tile less.
fn turned<N: Number>(matmul: &Matmul) {
    let Matmul { out, accumulate, .. } = matmul;
    N::TURNED.with_borrow_mut(|columns| {
        columns.resize((out.rows * out.cols).max(columns.len()), N::ZERO);
        let turned = Matrix {
            address: columns.as_mut_ptr() as u64,
            row_stride: 1,
            col_stride: out.rows as isize,
            ..*out
        };
        call::<N>(&Matmul { out: turned, accumulate: false, ..*matmul });
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

fn call<N: Number>(matmul: &Matmul) {
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
            gemm::Parallelism::None,
        );
    }
}
