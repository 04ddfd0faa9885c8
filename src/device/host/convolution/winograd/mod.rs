//! Undilated 3×3 convolutions by Winograd's minimal filtering F(2×2, 3×3) (Lavin and Gray 2016):
//! tiles of the input and the filters are transformed, multiplied position by position, and
//! transformed back. An output takes 4 products where the direct sum takes 9, and its error is at
//! most twice the direct sum's. (F(4×4), which takes 2.25, has six times the error.)
//!
//! Tiles are taken a group at a time. Groups, and the pieces that a group's work is divided into,
//! depend only on the convolution's sizes, so the results are the same for any number of threads.

mod transform;

use std::ptr::null_mut;

use super::filter::{Transposed, turned};
use super::runs::Runs;
use crate::Result;
use crate::device::host::denormals::FlushToZero;
use crate::device::host::matmul::serial;
use crate::device::host::tasks::{each, try_each};
use crate::device::library_op::{Convolution, ConvolutionPass, Matmul, Matrix};
use crate::dtype::DType;
use transform::{FILTER, INPUT, OUTPUT, Transform, Vectors};

/// Outputs along a side of a tile, and the positions of a transformed tile.
const SIDE: usize = 2;
const POSITIONS: usize = (SIDE + 2) * (SIDE + 2);
/// Elements of a group's transformed tiles: they stay in the last-level cache between the steps.
const GROUP_ELEMENTS: usize = 4 << 20;
/// Rows of a piece of the products.
const ROWS: usize = 256;
/// Fewest tiles, or channels of a filter, that are worth handing to another core to transform.
const TILES: usize = 4;
/// Fewest channels and filters for which the products outweigh the transforms.
const LEAST: usize = 128;
/// Shortest side of an image for which it is so. On smaller ones many outputs have few taps inside
/// the image, and direct sums of those round less.
const LEAST_SIDE: usize = 8;

/// Returns whether this way computes a pass, and does so faster than the direct sum. The filter's
/// gradient, a sum over all pixels, would have three times the direct sum's error.
pub fn takes(c: &Convolution) -> bool {
    let filter = matches!(c.pass, ConvolutionPass::Filter { .. });
    let many = c.channels.min(c.filters) >= LEAST && c.height.min(c.width) >= LEAST_SIDE;
    c.dtype == DType::F32 && c.kernel == 3 && c.dilation == 1 && many && !filter
}

pub fn convolution(c: &Convolution) -> Result<()> {
    let arch = pulp::Arch::new();
    let (x, y) = (Map::new(c, c.x, c.channels), Map::new(c, c.y, c.filters));
    let winograd = Winograd { c, arch };
    match c.pass {
        ConvolutionPass::Forward { accumulate } => {
            let filters = Transposed::new(c)?;
            winograd.correlate(x, y, filters.storage.as_ptr() as usize, accumulate)
        }
        ConvolutionPass::Data { accumulate } => {
            let filters = turned(c);
            winograd.correlate(y, x, filters.as_ptr() as usize, accumulate)
        }
        // See `takes`.
        ConvolutionPass::Filter { .. } => Runs(c).convolve(),
    }
}

struct Winograd<'a> {
    c: &'a Convolution,
    arch: pulp::Arch,
}

/// A feature map: the input or the output.
#[derive(Clone, Copy)]
struct Map {
    address: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl Map {
    fn new(c: &Convolution, address: u64, channels: usize) -> Map {
        Map { address: address as usize, channels, height: c.height, width: c.width }
    }

    /// Returns a pixel's channels, null outside the image.
    fn pixel(self, image: usize, h: Option<usize>, w: Option<usize>) -> *mut f32 {
        match (h.filter(|h| *h < self.height), w.filter(|w| *w < self.width)) {
            (Some(h), Some(w)) => {
                let pixel = (image * self.height + h) * self.width + w;
                (self.address as *mut f32).wrapping_add(pixel * self.channels)
            }
            _ => null_mut(),
        }
    }
}

/// Tiles in Winograd's domain: a matrix of tiles by channels for each position in a tile.
struct Planes {
    _values: Vec<f32>,
    /// Of the values. Tasks write their own rows of them at the same time.
    address: usize,
    cols: usize,
    /// Elements from one row to the next, and from one position to the next. Neither is a multiple
    /// of a page: a tile's vectors would compete for a few lines of the first-level cache.
    pitch: usize,
    stride: usize,
}

/// Elements of a cache line.
const LINE: usize = 16;

impl Planes {
    fn new(rows: usize, cols: usize) -> Planes {
        let pitch = cols.next_multiple_of(LINE) + LINE;
        let stride = rows * pitch + LINE;
        let mut values = vec![0.0; POSITIONS * stride];
        let address = values.as_mut_ptr() as usize;
        Planes { _values: values, address, cols, pitch, stride }
    }

    /// Returns a row of a position's matrix.
    fn row(&self, position: usize, row: usize) -> *mut f32 {
        let first = position * self.stride + row * self.pitch;
        (self.address as *mut f32).wrapping_add(first)
    }

    /// Returns the same row of every position's matrix: a tile.
    fn tile(&self, row: usize) -> [*mut f32; POSITIONS] {
        std::array::from_fn(|position| self.row(position, row))
    }

    /// Views `count` rows of a position's matrix.
    fn matrix(&self, position: usize, first: usize, count: usize) -> Matrix {
        Matrix {
            address: self.row(position, first) as u64,
            dtype: DType::F32,
            rows: count,
            cols: self.cols,
            row_stride: self.pitch as isize,
            col_stride: 1,
        }
    }
}

impl Winograd<'_> {
    /// Returns the tiles of an image along its height and its width.
    fn grid(&self) -> (usize, usize) {
        (self.c.height.div_ceil(SIDE), self.c.width.div_ceil(SIDE))
    }

    fn tiles(&self) -> usize {
        let (rows, columns) = self.grid();
        self.c.batch * rows * columns
    }

    fn largest_group(&self) -> usize {
        let per_tile = POSITIONS * (self.c.channels + self.c.filters);
        (GROUP_ELEMENTS / per_tile).next_multiple_of(ROWS).max(ROWS).min(self.tiles())
    }

    /// Iterates over the groups of tiles: (first, count).
    fn groups(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (tiles, count) = (self.tiles(), self.largest_group());
        (0..tiles).step_by(count.max(1)).map(move |first| (first, count.min(tiles - first)))
    }

    /// Returns the N pixels of a tile, which reaches `border` pixels beyond its outputs on each
    /// side.
    fn pixels<const N: usize>(&self, map: Map, tile: usize, border: usize) -> [*mut f32; N] {
        let (rows, columns) = self.grid();
        let (image, row, column) = (tile / columns / rows, tile / columns % rows, tile % columns);
        let side = SIDE + 2 * border;
        let at = |tile: usize, i: usize| (tile * SIDE + i).checked_sub(border);
        std::array::from_fn(|i| map.pixel(image, at(row, i / side), at(column, i % side)))
    }

    /// Transforms a tile.
    ///
    /// # Safety
    /// See [`Transform::run`].
    unsafe fn run(
        &self,
        transform: Transform,
        from: &[*mut f32],
        to: &[*mut f32],
        len: usize,
        accumulate: bool,
    ) {
        let _flushed = FlushToZero::new();
        // SAFETY: the caller upholds the same contract.
        unsafe { transform.run(self.arch, Vectors { from, to, len, accumulate }) };
    }

    /// Computes `to (+)= from * weights`. The order of weights is R,S, channels of `from`, channels
    /// of `to`.
    fn correlate(&self, from: Map, to: Map, weights: usize, accumulate: bool) -> Result<()> {
        let filters = Planes::new(from.channels, to.channels);
        each(from.channels, TILES, |channel| {
            let taps: [*mut f32; 9] = std::array::from_fn(|tap| {
                let first = (tap * from.channels + channel) * to.channels;
                (weights as *mut f32).wrapping_add(first)
            });
            // SAFETY: `weights` has 9 × from × to elements, and each channel writes its own rows.
            unsafe { self.run(FILTER, &taps, &filters.tile(channel), to.channels, false) };
        });
        let largest = self.largest_group();
        let inputs = Planes::new(largest, from.channels);
        let products = Planes::new(largest, to.channels);
        for (first, count) in self.groups() {
            each(count, TILES, |tile| {
                let pixels: [_; POSITIONS] = self.pixels(from, first + tile, 1);
                // SAFETY: a tile reads live pixels and writes its own row of every position.
                unsafe { self.run(INPUT, &pixels, &inputs.tile(tile), from.channels, false) };
            });
            let pieces = count.div_ceil(ROWS);
            try_each(POSITIONS * pieces, |task| {
                let (position, start) = (task / pieces, task % pieces * ROWS);
                let rows = ROWS.min(count - start);
                serial(&Matmul::plain(
                    products.matrix(position, start, rows),
                    inputs.matrix(position, start, rows),
                    filters.matrix(position, 0, from.channels),
                    false,
                ))
            })?;
            each(count, TILES, |tile| {
                let pixels: [_; SIDE * SIDE] = self.pixels(to, first + tile, 0);
                // SAFETY: the outputs of tiles are different pixels of the live map.
                unsafe {
                    self.run(OUTPUT, &products.tile(tile), &pixels, to.channels, accumulate);
                }
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::host::convolution::tests::errors;

    /// Batch, height, width, channels, filters: whole and cut tiles, single rows, several groups,
    /// and vectors that are not full.
    const SIZES: [[usize; 5]; 6] = [
        [1, 4, 4, 128, 128],
        [3, 7, 5, 133, 130],
        [2, 1, 9, 140, 128],
        [1, 1, 1, 128, 147],
        [1, 33, 18, 256, 128],
        [2, 61, 40, 128, 192],
    ];

    /// The error against double precision, as a root mean square, is at most twice the direct sum's
    /// where it replaces that.
    #[test]
    fn it_is_the_direct_sum_up_to_rounding() {
        let passes = [false, true].into_iter().flat_map(|accumulate| {
            [ConvolutionPass::Forward { accumulate }, ConvolutionPass::Data { accumulate }]
        });
        for (pass, size) in passes.flat_map(|pass| SIZES.map(|size| (pass, size))) {
            let (direct, winograd) = errors(size, pass, convolution);
            println!("{pass:?} {size:?}: direct {direct:.1e}, Winograd {winograd:.1e}");
            let limit = if size[1].min(size[2]) < LEAST_SIDE { 3.0 } else { 2.0 };
            assert!(winograd <= limit * direct, "{pass:?} {size:?}: {winograd} {direct}");
        }
    }
}
