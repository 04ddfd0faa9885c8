//! Dilated convolutions: one matmul per output row and tap, on the part of the row for which the
//! tap is inside the image. The filter gradient is parallel over taps and channels.

use super::filter::{Transposed, clear_filter, filter};
use crate::Result;
use crate::device::host::matmul::serial;
use crate::device::host::tasks::try_each;
use crate::device::library_op::{Convolution, ConvolutionPass, Matmul, Matrix};

/// Least number of pieces of the filter gradient, because its taps alone do not divide evenly among
/// the threads.
const FILTER_PIECES: usize = 18;
/// Least number of channels of a piece; below it, the piece's matmuls lose speed.
const FILTER_CHANNELS: usize = 256;

pub fn convolution(c: &Convolution) -> Result<()> {
    let rows = c.batch * c.height;
    match c.pass {
        ConvolutionPass::Forward { accumulate } => {
            let filters = Transposed::new(c)?;
            try_each(rows, |row| {
                let mut fresh = !accumulate;
                // The center tap covers the whole row, so it goes first and overwrites.
                taps(c).try_for_each(|tap| {
                    let Some((x, y)) = spans(c, row, tap, 1) else { return Ok(()) };
                    let accumulate = !std::mem::take(&mut fresh);
                    serial(&Matmul::plain(y, x, filters.tap(c, tap), accumulate))
                })
            })
        }
        ConvolutionPass::Data { accumulate } => try_each(rows, |row| {
            let mut fresh = !accumulate;
            taps(c).try_for_each(|tap| {
                let Some((y, x)) = spans(c, row, tap, -1) else { return Ok(()) };
                let accumulate = !std::mem::take(&mut fresh);
                serial(&Matmul::plain(x, y, filter(c, tap), accumulate))
            })
        }),
        ConvolutionPass::Filter { accumulate } => {
            if !accumulate {
                clear_filter(c);
            }
            let pieces = FILTER_PIECES.div_ceil(c.kernel * c.kernel);
            let width = c.channels.div_ceil(pieces).max(FILTER_CHANNELS);
            let starts = (0..c.channels).step_by(width);
            let pieces: Vec<_> =
                taps(c).flat_map(|tap| starts.clone().map(move |start| (tap, start))).collect();
            try_each(pieces.len(), |piece| {
                let (tap, start) = pieces[piece];
                let width = width.min(c.channels - start);
                let out = filter(c, tap).columns((start, width));
                (0..c.batch * c.height).try_for_each(|row| {
                    let Some((x, y)) = spans(c, row, tap, 1) else { return Ok(()) };
                    let b = x.columns((start, width));
                    serial(&Matmul::plain(out, y.t(), b, true))
                })
            })
        }
    }
}

/// Iterates over the filter taps (r, s), the center first.
fn taps(c: &Convolution) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (side, center) = (c.kernel, (c.kernel / 2, c.kernel / 2));
    let all = (0..side).flat_map(move |r| (0..side).map(move |s| (r, s)));
    std::iter::once(center).chain(all.filter(move |&tap| tap != center))
}

/// Returns the parts that a tap connects of an image row and of the row that it contributes to:
/// (source, destination). `direction` 1 reads x and writes y at `row`; -1 reads y and writes x at
/// `row`. Returns None if the tap is outside the image.
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
