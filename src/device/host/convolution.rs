//! Convolutions as products, without gathering patches: one product per output row and filter tap,
//! on the part of the row for which the tap lies inside the image. Rows are independent, so they
//! are spread over the threads; the filter's gradient is spread over its taps.

use rayon::prelude::*;

use super::product::product;
use crate::Result;
use crate::device::backend::{Convolution, ConvolutionPass, Matrix, Product};

const SERIAL: gemm::Parallelism = gemm::Parallelism::None;

pub(super) fn convolution(c: &Convolution) -> Result<()> {
    let rows = c.batch * c.height;
    match c.pass {
        ConvolutionPass::Forward { accumulate } => (0..rows).into_par_iter().try_for_each(|row| {
            let mut fresh = !accumulate;
            // The centre tap covers the whole row, so it goes first and overwrites.
            taps(c).try_for_each(|tap| {
                let Some((x, y)) = spans(c, row, tap, 1) else { return Ok(()) };
                let accumulate = !std::mem::take(&mut fresh);
                product(&Product { out: y, a: x, b: filter(c, tap).t(), accumulate }, SERIAL)
            })
        }),
        ConvolutionPass::Data { accumulate } => (0..rows).into_par_iter().try_for_each(|row| {
            let mut fresh = !accumulate;
            taps(c).try_for_each(|tap| {
                let Some((y, x)) = spans(c, row, tap, -1) else { return Ok(()) };
                let accumulate = !std::mem::take(&mut fresh);
                product(&Product { out: x, a: y, b: filter(c, tap), accumulate }, SERIAL)
            })
        }),
        ConvolutionPass::Filter => {
            let taps: Vec<_> = taps(c).collect();
            taps.into_par_iter().try_for_each(|tap| {
                (0..rows).try_for_each(|row| {
                    let Some((x, y)) = spans(c, row, tap, 1) else { return Ok(()) };
                    let out = filter(c, tap);
                    product(&Product { out, a: y.t(), b: x, accumulate: true }, SERIAL)
                })
            })
        }
    }
}

/// Filter taps (r, s), the centre first.
fn taps(c: &Convolution) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (side, centre) = (c.kernel, (c.kernel / 2, c.kernel / 2));
    let all = (0..side).flat_map(move |r| (0..side).map(move |s| (r, s)));
    std::iter::once(centre).chain(all.filter(move |&tap| tap != centre))
}

/// K×C: one tap of the filter.
fn filter(c: &Convolution, (r, s): (usize, usize)) -> Matrix {
    Matrix {
        address: c.w + ((r * c.kernel + s) * c.channels * c.dtype.bytes()) as u64,
        dtype: c.dtype,
        rows: c.filters,
        cols: c.channels,
        row_stride: (c.kernel * c.kernel * c.channels) as isize,
        col_stride: 1,
    }
}

/// The part of an image row and of the row it is written to that a tap connects: (source,
/// destination). `direction` 1 reads x and writes y at `row`; -1 reads y and writes x at `row`.
/// None where the tap falls outside the image.
fn spans(
    c: &Convolution,
    row: usize,
    (r, s): (usize, usize),
    direction: isize,
) -> Option<(Matrix, Matrix)> {
    let shift =
        |tap: usize| (tap as isize - (c.kernel / 2) as isize) * c.dilation as isize * direction;
    let (image, h) = (row / c.height, row % c.height);
    let source_h = h.checked_add_signed(shift(r)).filter(|&h| h < c.height)?;
    let dw = shift(s);
    let first = (-dw).max(0) as usize;
    let end = c.width as isize - dw.max(0);
    let count = usize::try_from(end - first as isize).ok().filter(|&n| n > 0)?;
    let span = |base: u64, channels: usize, h: usize, w: usize| Matrix {
        address: base
            + (((image * c.height + h) * c.width + w) * channels * c.dtype.bytes()) as u64,
        dtype: c.dtype,
        rows: count,
        cols: channels,
        row_stride: channels as isize,
        col_stride: 1,
    };
    let source_w = (first as isize + dw) as usize;
    Some(match direction {
        1 => (span(c.x, c.channels, source_h, source_w), span(c.y, c.filters, h, first)),
        _ => (span(c.y, c.filters, source_h, source_w), span(c.x, c.channels, h, first)),
    })
}
