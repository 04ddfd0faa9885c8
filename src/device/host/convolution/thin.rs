//! Convolutions with few filters, such as a classifier's. A matmul with so few columns would leave
//! most of its registers empty. So one wide matmul multiplies every pixel by all taps of all
//! filters, and then each output adds the products at which its taps point.

use std::ops::AddAssign;

use super::filter::filter;
use crate::device::host::denormals::FlushToZero;
use crate::device::host::matmul::matmul;
use crate::device::host::tasks::each;
use crate::device::library_op::{Convolution, ConvolutionPass, Matmul, Matrix};
use crate::dtype::DType;
use crate::{Error, Result};

/// Most filters for which a matmul's columns are few.
const FILTERS: usize = 32;
/// Fewest channels for which the products outweigh the additions.
const CHANNELS: usize = 64;
/// Elements of the products in memory at a time, unless one image has more.
const ELEMENTS: usize = 4 << 20;

/// Returns whether a pass is computed so. The gradients have wide matmuls anyway.
pub fn takes(c: &Convolution) -> bool {
    let forward = matches!(c.pass, ConvolutionPass::Forward { .. });
    forward && c.kernel > 1 && c.filters <= FILTERS && c.channels >= CHANNELS
}

pub fn convolution(c: &Convolution) -> Result<()> {
    match c.dtype {
        DType::F32 => sums_of_products::<f32>(c),
        DType::F64 => sums_of_products::<f64>(c),
        other => Err(Error::device(format!("no convolution for {other:?}"))),
    }
}

/// A tap with some pixel of the image below it, by its distance from the center.
#[derive(Clone, Copy)]
struct Tap {
    row: usize,
    column: usize,
    down: isize,
    right: isize,
}

fn taps(c: &Convolution) -> Vec<Tap> {
    let shift = |tap: usize| (tap as isize - (c.kernel / 2) as isize) * c.dilation as isize;
    let all = (0..c.kernel).flat_map(|row| (0..c.kernel).map(move |column| (row, column)));
    all.map(|(row, column)| Tap { row, column, down: shift(row), right: shift(column) })
        .filter(|tap| tap.down.unsigned_abs() < c.height && tap.right.unsigned_abs() < c.width)
        .collect()
}

fn sums_of_products<N: Copy + Default + AddAssign + Send + Sync>(c: &Convolution) -> Result<()> {
    let taps = taps(c);
    let (pixels, columns) = (c.height * c.width, taps.len() * c.filters);
    let weights = weights::<N>(c, &taps);
    let images = (ELEMENTS / (pixels * columns).max(1)).clamp(1, c.batch.max(1));
    let mut products = vec![N::default(); images * pixels * columns];
    for first in (0..c.batch).step_by(images) {
        let images = images.min(c.batch - first);
        let matrix = |address, rows, cols| Matrix::contiguous(address, c.dtype, rows, cols);
        let x = c.x + (first * pixels * c.channels * size_of::<N>()) as u64;
        matmul(&Matmul::plain(
            matrix(products.as_mut_ptr() as u64, images * pixels, columns),
            matrix(x, images * pixels, c.channels),
            matrix(weights.as_ptr() as u64, columns, c.channels).t(),
            false,
        ))?;
        let products = &products;
        each(images * c.height, 1, |row| {
            let _flushed = FlushToZero::new();
            let at = (first * c.height + row) * c.width * c.filters;
            // SAFETY: each row of the output, a live tensor, belongs to one task.
            let out = unsafe {
                std::slice::from_raw_parts_mut((c.y as *mut N).add(at), c.width * c.filters)
            };
            add_row(c, &taps, products, row, out);
        });
    }
    Ok(())
}

/// Returns the filters in the order R,S,K,C, without the taps that no pixel is below.
fn weights<N: Copy>(c: &Convolution, taps: &[Tap]) -> Vec<N> {
    let mut weights = Vec::with_capacity(taps.len() * c.filters * c.channels);
    for tap in taps {
        let Matrix { address, row_stride, .. } = filter(c, (tap.row, tap.column));
        for k in 0..c.filters {
            // SAFETY: a filter's tap has `channels` adjacent elements of the live tensor.
            weights.extend_from_slice(unsafe {
                let from = (address as *const N).offset(k as isize * row_stride);
                std::slice::from_raw_parts(from, c.channels)
            });
        }
    }
    weights
}

/// Computes a row of the output from the products of the pixels of some images. `row` counts the
/// rows of these images.
fn add_row<N: Copy + Default + AddAssign>(
    c: &Convolution,
    taps: &[Tap],
    products: &[N],
    row: usize,
    out: &mut [N],
) {
    if !c.accumulates() {
        out.fill(N::default());
    }
    let columns = taps.len() * c.filters;
    let (image, h) = (row / c.height, row % c.height);
    for (index, tap) in taps.iter().enumerate() {
        let Some(h) = h.checked_add_signed(tap.down).filter(|h| *h < c.height) else { continue };
        let first = tap.right.min(0).unsigned_abs();
        let end = c.width - tap.right.max(0).unsigned_abs();
        for w in first..end {
            let source = (image * c.height + h) * c.width + w.wrapping_add_signed(tap.right);
            let from = &products[source * columns + index * c.filters..][..c.filters];
            let to = &mut out[w * c.filters..][..c.filters];
            for (to, from) in to.iter_mut().zip(from) {
                *to += *from;
            }
        }
    }
}
