//! Convolutions as products, without gathering patches. Undilated, the taps of a filter row are
//! neighbours in memory: see [`Runs`]. Dilated, there is a product per output row and tap, on the part
//! of the row for which the tap lies inside the image. Output rows are independent, so they are spread
//! over the threads; the filter's gradient is spread over its taps and channels.
//!
//! No sum depends on how the work was spread, so the number of threads does not change a bit.

mod runs;

use rayon::prelude::*;

use super::product::product;
use crate::device::job::{Convolution, ConvolutionPass, Matrix, Product};
use crate::dtype::DType;
use crate::{Error, Result};
use runs::Runs;

const SERIAL: gemm::Parallelism = gemm::Parallelism::None;
/// Pieces that the filter's gradient is at least cut into, for its taps alone do not divide evenly,
/// and the width below which a piece's products lose speed.
const FILTER_PIECES: usize = 18;
const FILTER_CHANNELS: usize = 256;

pub(super) fn convolution(c: &Convolution) -> Result<()> {
    if c.dilation == 1 {
        return Runs(c).convolve();
    }
    let rows = (0..c.batch * c.height).into_par_iter().with_max_len(1);
    match c.pass {
        ConvolutionPass::Forward { accumulate } => {
            let filters = Transposed::new(c)?;
            rows.try_for_each(|row| {
                let mut fresh = !accumulate;
                // The centre tap covers the whole row, so it goes first and overwrites.
                taps(c).try_for_each(|tap| {
                    let Some((x, y)) = spans(c, row, tap, 1) else { return Ok(()) };
                    let accumulate = !std::mem::take(&mut fresh);
                    product(&Product::plain(y, x, filters.tap(c, tap), accumulate), SERIAL)
                })
            })
        }
        ConvolutionPass::Data { accumulate } => rows.try_for_each(|row| {
            let mut fresh = !accumulate;
            taps(c).try_for_each(|tap| {
                let Some((y, x)) = spans(c, row, tap, -1) else { return Ok(()) };
                let accumulate = !std::mem::take(&mut fresh);
                product(&Product::plain(x, y, filter(c, tap), accumulate), SERIAL)
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
            pieces.into_par_iter().with_max_len(1).try_for_each(|(tap, start)| {
                let width = width.min(c.channels - start);
                let out = filter(c, tap).columns(start, width);
                (0..c.batch * c.height).try_for_each(|row| {
                    let Some((x, y)) = spans(c, row, tap, 1) else { return Ok(()) };
                    let b = x.columns(start, width);
                    product(&Product::plain(out, y.t(), b, true), SERIAL)
                })
            })
        }
    }
}

fn clear_filter(c: &Convolution) {
    let bytes = c.filters * c.kernel * c.kernel * c.channels * c.dtype.bytes();
    // SAFETY: the filter, a live tensor of this many bytes.
    unsafe { std::ptr::write_bytes(c.w as *mut u8, 0, bytes) };
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

impl Matrix {
    /// `width` of the columns, from `start` on.
    fn columns(self, start: usize, width: usize) -> Matrix {
        let offset = start as isize * self.col_stride * self.dtype.bytes() as isize;
        Matrix { address: self.address.wrapping_add_signed(offset as i64), cols: width, ..self }
    }
}

/// The filter as R,S,C,K: a product transposes its operand otherwise, once for every row of the
/// image.
struct Transposed {
    /// Numbers of the convolution's type.
    storage: Vec<u64>,
}

impl Transposed {
    fn new(c: &Convolution) -> Result<Transposed> {
        let taps = c.kernel * c.kernel;
        let bytes = taps * c.channels * c.filters * c.dtype.bytes();
        let mut storage = vec![0u64; bytes.div_ceil(8)];
        let to = storage.as_mut_ptr() as u64;
        let tap_bytes = c.channels * c.filters * c.dtype.bytes();
        (0..taps).into_par_iter().try_for_each(|tap| {
            let from = filter(c, (tap / c.kernel, tap % c.kernel));
            let to = to + (tap * tap_bytes) as u64;
            // SAFETY: `from` views the live filter; `to` is this tap's own part of `storage`.
            match c.dtype {
                DType::F32 => unsafe { transpose::<f32>(from, to) },
                DType::F64 => unsafe { transpose::<f64>(from, to) },
                other => return Err(Error::device(format!("no convolution for {other:?}"))),
            }
            Ok(())
        })?;
        Ok(Transposed { storage })
    }

    /// C×K: one tap.
    fn tap(&self, c: &Convolution, (r, s): (usize, usize)) -> Matrix {
        let size = c.channels * c.filters * c.dtype.bytes();
        Matrix {
            address: self.storage.as_ptr() as u64 + ((r * c.kernel + s) * size) as u64,
            dtype: c.dtype,
            rows: c.channels,
            cols: c.filters,
            row_stride: c.filters as isize,
            col_stride: 1,
        }
    }
}

/// Writes the transpose of `from`, whose columns are neighbours in memory, tile by tile.
///
/// # Safety
/// `from` must be readable, and `to` writable for as many numbers.
unsafe fn transpose<N: Copy>(from: Matrix, to: u64) {
    const TILE: usize = 16;
    let (source, target) = (from.address as *const N, to as *mut N);
    for row in (0..from.rows).step_by(TILE) {
        for col in (0..from.cols).step_by(TILE) {
            for c in col..from.cols.min(col + TILE) {
                for r in row..from.rows.min(row + TILE) {
                    // SAFETY: r and c are inside the matrix.
                    unsafe {
                        let value = *source.offset(r as isize * from.row_stride + c as isize);
                        *target.add(c * from.rows + r) = value;
                    }
                }
            }
        }
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
