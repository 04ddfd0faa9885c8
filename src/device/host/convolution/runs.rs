//! Undilated convolutions. What an output pixel reads from an image row is one run of numbers,
//! because the taps of a filter row are adjacent, and its neighbor's run begins one pixel later:
//! the runs form a matrix with overlapping rows. So there is one matmul per output row and filter
//! row. Pixels at the left and the right edge, whose runs are shorter, are computed column by
//! column.

use super::filter::{Transposed, clear_filter, turned};
use crate::Result;
use crate::device::host::matmul::serial;
use crate::device::host::tasks::try_each;
use crate::device::library_op::{Convolution, ConvolutionPass, Matmul, Matrix};

/// Least and largest number of elements of a filter row in a piece of the filter gradient: smaller
/// pieces lose speed, larger ones leave too few pieces.
const PIECE: (usize, usize) = (48, 256);
const PIECES_PER_ROW: usize = 6;

pub struct Runs<'a>(pub &'a Convolution);

/// A feature map: the input or the output.
#[derive(Clone, Copy)]
struct Map {
    address: u64,
    channels: usize,
}

/// Output pixels with the same taps inside the image, at equal distances: a row, or a column of an
/// edge.
#[derive(Clone, Copy)]
struct Line {
    image: usize,
    h: usize,
    w: usize,
    count: usize,
    /// Distance from one pixel to the next, in pixels.
    step: usize,
    /// The taps of a filter row that are inside the image: first and end.
    taps: (usize, usize),
}

impl Runs<'_> {
    pub fn convolve(&self) -> Result<()> {
        let c = self.0;
        let (x, y) =
            (Map { address: c.x, channels: c.channels }, Map { address: c.y, channels: c.filters });
        match c.pass {
            ConvolutionPass::Forward { accumulate } => {
                let filters = Transposed::new(c)?;
                self.correlate(x, y, filters.storage.as_ptr() as u64, accumulate)
            }
            ConvolutionPass::Data { accumulate } => {
                let filters = turned(c);
                self.correlate(y, x, filters.as_ptr() as u64, accumulate)
            }
            ConvolutionPass::Filter { accumulate } => {
                if !accumulate {
                    clear_filter(c);
                }
                self.filter_gradient(x, y)
            }
        }
    }

    fn half(&self) -> usize {
        self.0.kernel / 2
    }

    /// Iterates over the columns whose pixels lack taps on the left or the right.
    fn edges(&self) -> impl Iterator<Item = usize> + use<> {
        let (width, half) = (self.0.width, self.half());
        (0..width).filter(move |w| *w < half || w + half >= width)
    }

    /// Returns the pixels of a row that have all taps.
    fn row(&self, image: usize, h: usize) -> Line {
        let Convolution { width, kernel, .. } = *self.0;
        let (half, count) = (self.half(), (width + 1).saturating_sub(kernel));
        Line { image, h, w: half, count, step: 1, taps: (0, kernel) }
    }

    /// Returns the pixels of an edge column for which filter row `r` is inside the image.
    fn column(&self, image: usize, w: usize, r: usize) -> Line {
        let Convolution { width, height, kernel, .. } = *self.0;
        let half = self.half();
        let inside = |at: usize, size: usize| {
            (half.saturating_sub(at), (size + half).saturating_sub(at).min(kernel))
        };
        let (h, end) = (half.saturating_sub(r), (height + half).saturating_sub(r).min(height));
        let (count, step) = (end.saturating_sub(h), width);
        Line { image, h, w, count, step, taps: inside(w, width) }
    }

    /// Views a line's pixels in a map as a matrix.
    fn pixels(&self, map: Map, line: Line) -> Matrix {
        let Convolution { width, height, dtype, .. } = *self.0;
        let pixel = (line.image * height + line.h) * width + line.w;
        Matrix {
            address: map.address + (pixel * map.channels * dtype.bytes()) as u64,
            dtype,
            rows: line.count,
            cols: map.channels,
            row_stride: (line.step * map.channels) as isize,
            col_stride: 1,
        }
    }

    /// Views what filter row `r` reads for a line; None if that is above or below the image.
    fn runs(&self, map: Map, line: Line, r: usize) -> Option<Matrix> {
        let half = self.half();
        let h = (line.h + r).checked_sub(half).filter(|&h| h < self.0.height)?;
        let (first, end) = line.taps;
        let source = Line { h, w: line.w + first - half, ..line };
        let pixels = self.pixels(map, source);
        Some(Matrix { cols: (end - first) * map.channels, ..pixels })
            .filter(|runs| runs.rows > 0 && runs.cols > 0)
    }

    /// Iterates over the filter rows, the middle one first: it reads something for every pixel, so
    /// it can overwrite.
    fn filter_rows(&self) -> impl Iterator<Item = usize> + use<> {
        let (half, kernel) = (self.half(), self.0.kernel);
        std::iter::once(half).chain((0..kernel).filter(move |&r| r != half))
    }

    /// Computes `to (+)= from * weights`. The order of weights is R,S, channels of `from`, channels
    /// of `to`.
    fn correlate(&self, from: Map, to: Map, weights: u64, accumulate: bool) -> Result<()> {
        let Convolution { batch, height, kernel, dtype, .. } = *self.0;
        let add = |line: Line, r: usize, fresh: bool| {
            let Some(runs) = self.runs(from, line, r) else { return Ok(()) };
            let first = (r * kernel + line.taps.0) * from.channels * to.channels;
            let weights = Matrix {
                address: weights + (first * dtype.bytes()) as u64,
                dtype,
                rows: runs.cols,
                cols: to.channels,
                row_stride: to.channels as isize,
                col_stride: 1,
            };
            serial(&Matmul::plain(self.pixels(to, line), runs, weights, !fresh))
        };
        let fresh = |r: usize| !accumulate && r == self.half();
        let edges: Vec<usize> = self.edges().collect();
        let tasks = batch * (height + edges.len());
        try_each(tasks, |task| {
            let (image, line) = (task / (height + edges.len()), task % (height + edges.len()));
            self.filter_rows().try_for_each(|r| match line.checked_sub(height) {
                Some(edge) => add(self.column(image, edges[edge], r), r, fresh(r)),
                None => add(self.row(image, line), r, fresh(r)),
            })
        })
    }

    /// Accumulates into the filter, in parallel over independent pieces of its rows.
    fn filter_gradient(&self, x: Map, y: Map) -> Result<()> {
        let Convolution { batch, height, kernel, channels, filters, dtype, w, .. } = *self.0;
        let row = kernel * channels;
        let width = row.div_ceil(PIECES_PER_ROW).clamp(PIECE.0, PIECE.1).min(row);
        let pieces: Vec<(usize, usize)> = (0..kernel)
            .flat_map(|r| (0..row).step_by(width).map(move |start| (r, start)))
            .collect();
        try_each(pieces.len(), |piece| {
            let (r, start) = pieces[piece];
            let end = (start + width).min(row);
            let add = |line: Line| {
                // The part of the piece for which the line has taps.
                let first = line.taps.0 * channels;
                let (from, to) = (start.max(first), end.min(line.taps.1 * channels));
                let Some(runs) = self.runs(x, line, r).filter(|_| from < to) else {
                    return Ok(());
                };
                let out = Matrix {
                    address: w + ((r * row + from) * dtype.bytes()) as u64,
                    dtype,
                    rows: filters,
                    cols: to - from,
                    row_stride: (kernel * row) as isize,
                    col_stride: 1,
                };
                let runs = runs.columns((from - first, to - from));
                serial(&Matmul::plain(out, self.pixels(y, line).t(), runs, true))
            };
            (0..batch).try_for_each(|image| {
                (0..height).try_for_each(|h| add(self.row(image, h)))?;
                self.edges().try_for_each(|w| add(self.column(image, w, r)))
            })
        })
    }
}
