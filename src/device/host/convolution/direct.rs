//! Undilated convolutions of few channels, which a matmul would copy into its own order for little
//! work on each number. A tile of neighboring pixels and filters stays in registers for all taps:
//! each number of the input is broadcast to a register and multiplied by a register of filters,
//! straight from the map. Tiles at the left and the right edge read a copy with zeros around it.

use std::array::from_fn;

use pulp::{Arch, Simd, WithSimd};

use super::filter::{Transposed, turned};
use super::runs::Runs;
use crate::Result;
use crate::device::host::denormals::FlushToZero;
use crate::device::host::tasks::each;
use crate::device::library_op::{Convolution, ConvolutionPass};
use crate::dtype::DType;

/// Side of the filter.
const SIDE: usize = 3;
/// Channels of the output: one tile's where registers have 16 elements.
const OUTPUTS: usize = 32;
/// Registers of output channels in a tile.
const VECTORS: usize = 2;
/// Most pixels of a tile: with these, the sums fill the registers of AVX-512.
const PIXELS: usize = 12;
/// Fewest pixels of a row. Narrower maps have little work.
const WIDTH: usize = 64;

/// Returns whether this way computes a pass, and does so faster than a matmul: with twice the
/// outputs, it does not.
pub fn takes(c: &Convolution) -> bool {
    let (from, to) = match c.pass {
        ConvolutionPass::Forward { .. } => (c.channels, c.filters),
        ConvolutionPass::Data { .. } => (c.filters, c.channels),
        ConvolutionPass::Filter { .. } => return false,
    };
    let fits = c.dtype == DType::F32 && c.kernel == SIDE && c.dilation == 1;
    fits && c.width >= WIDTH && matches!(from, 32 | 64) && to == OUTPUTS
}

pub fn convolution(c: &Convolution) -> Result<()> {
    match c.pass {
        ConvolutionPass::Forward { accumulate } => {
            let filters = Transposed::new(c)?;
            correlate(c, (c.x, c.channels), (c.y, c.filters), &filters.storage, accumulate);
            Ok(())
        }
        ConvolutionPass::Data { accumulate } => {
            correlate(c, (c.y, c.filters), (c.x, c.channels), &turned(c), accumulate);
            Ok(())
        }
        // Its tiles would be as large as the filter.
        ConvolutionPass::Filter { .. } => Runs(c).convolve(),
    }
}

/// Computes `to (+)= from * weights`. Maps are address and channels; the order of weights is R,S,
/// channels of `from`, channels of `to`.
fn correlate(
    c: &Convolution,
    from: (u64, usize),
    to: (u64, usize),
    weights: &[u64],
    accumulate: bool,
) {
    let arch = Arch::new();
    each(c.batch * c.height, 1, |row| {
        let _flushed = FlushToZero::new();
        let row = Row { c, from, to, weights, row, accumulate };
        match from.1 {
            32 => arch.dispatch(Columns::<32>(row)),
            _ => arch.dispatch(Columns::<64>(row)),
        }
    });
}

/// A row of the output.
#[derive(Clone, Copy)]
struct Row<'a> {
    c: &'a Convolution,
    from: (u64, usize),
    to: (u64, usize),
    weights: &'a [u64],
    row: usize,
    accumulate: bool,
}

/// A row whose pixels have C channels: known to the compiler, so that a tile's pixels are at constant
/// distances.
struct Columns<'a, const C: usize>(Row<'a>);

impl<const C: usize> WithSimd for Columns<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.0.tiles::<S, C, PIXELS>(simd),
            // The sums of half as many fit into 16 registers.
            _ => self.0.tiles::<S, C, { PIXELS / 2 }>(simd),
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const C: usize, const P: usize>(self, simd: S) {
        let Row { c, row, to, .. } = self;
        let mut padded = vec![0f32; SIDE * (P + SIDE - 1) * C];
        for w in (0..c.width).step_by(P) {
            let pixels = P.min(c.width - w);
            let half = SIDE / 2;
            let inside = w >= half && w + P + half <= c.width;
            if !inside {
                self.pad::<C, P>(w, &mut padded);
            }
            // What each row of the filter reads, from its first tap of the first pixel on.
            let sources: [Option<*const f32>; SIDE] = from_fn(|r| {
                let h = self.source_row(r)?;
                Some(match inside {
                    true => self.pixel::<C>(h, w - half),
                    false => padded[r * (P + SIDE - 1) * C..].as_ptr(),
                })
            });
            let out = (to.0 as *mut f32).wrapping_add((row * c.width + w) * to.1);
            for k in (0..to.1).step_by(VECTORS * S::F32_LANES) {
                // SAFETY: sources have C channels for every tap of P pixels, the output has `pixels`
                // pixels from `w` on, and a multiple of the tile's filters.
                unsafe { self.tile::<S, C, P>(simd, sources, out.wrapping_add(k), k, pixels) };
            }
        }
    }

    /// Returns the row that row `r` of the filter reads, None outside the image.
    #[inline(always)]
    fn source_row(&self, r: usize) -> Option<usize> {
        let Row { c, row, .. } = self;
        let h = (row % c.height + r).checked_sub(SIDE / 2).filter(|h| *h < c.height)?;
        Some(row / c.height * c.height + h)
    }

    #[inline(always)]
    fn pixel<const C: usize>(&self, row: usize, w: usize) -> *const f32 {
        (self.from.0 as *const f32).wrapping_add((row * self.c.width + w) * C)
    }

    /// Copies what P pixels read, with zeros outside the image.
    #[inline(always)]
    fn pad<const C: usize, const P: usize>(&self, first: usize, padded: &mut [f32]) {
        let Row { c, .. } = self;
        for (r, row) in padded.chunks_exact_mut((P + SIDE - 1) * C).enumerate() {
            let Some(h) = self.source_row(r) else { continue };
            for (column, pixel) in row.chunks_exact_mut(C).enumerate() {
                match (first + column).checked_sub(SIDE / 2).filter(|w| *w < c.width) {
                    // SAFETY: the pixel is inside the map, a live tensor.
                    Some(w) => pixel.copy_from_slice(unsafe {
                        std::slice::from_raw_parts(self.pixel::<C>(h, w), C)
                    }),
                    None => pixel.fill(0.0),
                }
            }
        }
    }

    /// Computes a tile from its first filter, `k`, on.
    ///
    /// # Safety
    /// Each source that is not None has the channels of P pixels and the taps around them, and
    /// `pixels` of the output have the tile's filters from `out` on.
    #[inline(always)]
    unsafe fn tile<S: Simd, const C: usize, const P: usize>(
        &self,
        simd: S,
        sources: [Option<*const f32>; SIDE],
        out: *mut f32,
        k: usize,
        pixels: usize,
    ) {
        let depth = self.to.1;
        let run = SIDE * C;
        let weights = (self.weights.as_ptr() as *const f32).wrapping_add(k);
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; P];
        for (r, source) in sources.iter().enumerate() {
            let Some(source) = *source else { continue };
            for at in 0..run {
                // SAFETY: `weights` has a row of `depth` for each number of a run, for each filter
                // row, and the caller vouches for the source.
                unsafe {
                    let weights = weights.add((r * run + at) * depth);
                    let weights: [S::f32s; VECTORS] =
                        [register::<S>(weights), register::<S>(weights.add(S::F32_LANES))];
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let number = simd.splat_f32s(*source.add(p * C + at));
                        sums[0] = simd.mul_add_f32s(number, weights[0], sums[0]);
                        sums[1] = simd.mul_add_f32s(number, weights[1], sums[1]);
                    }
                }
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            if p >= pixels {
                break;
            }
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: the caller vouches for the output.
                unsafe {
                    let to = out.add(p * depth + v * S::F32_LANES);
                    let sum = match self.accumulate {
                        true => simd.add_f32s(register::<S>(to), *sum),
                        false => *sum,
                    };
                    to.cast::<S::f32s>().write_unaligned(sum);
                }
            }
        }
    }
}

/// # Safety
/// A register of elements can be read at `from`.
#[inline(always)]
unsafe fn register<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: the caller upholds the same contract.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::host::convolution::tests::errors;

    /// Rows of one tile that is not full, of whole tiles, and of single pixels at the edge.
    #[test]
    fn it_rounds_no_more_than_twice_as_much_as_matmuls() {
        for size in [[1, 1, 1, 32, 32], [3, 5, 7, 64, 32], [2, 4, 25, 32, 64], [1, 3, 37, 64, 64]] {
            for accumulate in [false, true] {
                for pass in
                    [ConvolutionPass::Forward { accumulate }, ConvolutionPass::Data { accumulate }]
                {
                    let (matmuls, direct) = errors(size, pass, convolution);
                    assert!(direct <= 2.0 * matmuls, "{pass:?} {size:?}: {direct} {matmuls}");
                }
            }
        }
    }
}
