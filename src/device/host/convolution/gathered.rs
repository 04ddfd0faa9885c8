//! Dilated convolutions of narrow maps. A row of such a map has too few pixels for a matmul of its own: the
//! filter would be read again for each of them. So what every output pixel reads is gathered into
//! a row of one matrix (im2col), a few images at a time.

use super::filter::turned;
use crate::Result;
use crate::device::host::matmul::matmul;
use crate::device::host::tasks::each;
use crate::device::library_op::{Convolution, ConvolutionPass, Matmul, Matrix};

/// Width up to which a map is narrow.
const WIDTH: usize = 32;
/// Elements that are gathered at a time, unless one image has more.
const ELEMENTS: usize = 4 << 20;
/// Least part of the gathered elements that are inside the image: the others are zeros, which cost
/// as many products.
const INSIDE: f64 = 0.4;

/// Returns whether a pass is computed so.
pub fn takes(c: &Convolution) -> bool {
    let inside = |size: usize| {
        let shifts = (0..c.kernel).map(|tap| tap.abs_diff(c.kernel / 2) * c.dilation);
        let pixels: usize = shifts.map(|shift| size.saturating_sub(shift)).sum();
        pixels as f64 / (c.kernel * size) as f64
    };
    c.width <= WIDTH && inside(c.width) * inside(c.height) >= INSIDE
}

pub fn convolution(c: &Convolution) -> Result<()> {
    let (x, y) = (Map { address: c.x, depth: c.channels }, Map { address: c.y, depth: c.filters });
    let matrix = |address, rows, cols| Matrix::contiguous(address, c.dtype, rows, cols);
    let taps = c.kernel * c.kernel;
    match c.pass {
        ConvolutionPass::Forward { accumulate } => {
            let filters = matrix(c.w, c.filters, taps * c.channels).t();
            x.in_groups(c, |patches, first| {
                let out = matrix(y.pixel(c, first), patches.rows, y.depth);
                matmul(&Matmul::plain(out, patches, filters, accumulate))
            })
        }
        ConvolutionPass::Data { accumulate } => {
            let filters = turned(c);
            let filters = matrix(filters.as_ptr() as u64, taps * c.filters, c.channels);
            y.in_groups(c, |patches, first| {
                let out = matrix(x.pixel(c, first), patches.rows, x.depth);
                matmul(&Matmul::plain(out, patches, filters, accumulate))
            })
        }
        ConvolutionPass::Filter { accumulate } => {
            let out = matrix(c.w, c.filters, taps * c.channels);
            x.in_groups(c, |patches, first| {
                let dy = matrix(y.pixel(c, first), patches.rows, y.depth);
                matmul(&Matmul::plain(out, dy.t(), patches, accumulate || first > 0))
            })
        }
    }
}

/// A feature map: the input or the output.
#[derive(Clone, Copy)]
struct Map {
    address: u64,
    depth: usize,
}

impl Map {
    fn pixel(self, c: &Convolution, pixel: usize) -> u64 {
        self.address + (pixel * self.depth * c.dtype.bytes()) as u64
    }

    /// Calls `with` for groups of images, with the matrix of what their pixels read and their first
    /// pixel.
    fn in_groups(self, c: &Convolution, with: impl Fn(Matrix, usize) -> Result<()>) -> Result<()> {
        let (pixels, terms) = (c.height * c.width, c.kernel * c.kernel * self.depth);
        let images = (ELEMENTS / (pixels * terms).max(1)).clamp(1, c.batch.max(1));
        let mut patches = vec![0u64; (images * pixels * terms * c.dtype.bytes()).div_ceil(8)];
        let address = patches.as_mut_ptr() as usize;
        for first in (0..c.batch).step_by(images) {
            let images = images.min(c.batch - first);
            each(images * c.height, 1, |row| {
                let to = address + row * c.width * terms * c.dtype.bytes();
                // SAFETY: each row of the images has its own part of `patches`.
                unsafe { self.gather(c, first + row / c.height, row % c.height, to as *mut u8) }
            });
            let patches = Matrix::contiguous(address as u64, c.dtype, images * pixels, terms);
            with(patches, first * pixels)?;
        }
        Ok(())
    }

    /// Writes what the pixels of a row read, tap by tap, with zeros outside the image.
    ///
    /// # Safety
    /// The taps of a row of pixels can be written at `to`.
    unsafe fn gather(self, c: &Convolution, image: usize, row: usize, mut to: *mut u8) {
        let bytes = self.depth * c.dtype.bytes();
        let half = c.kernel / 2;
        let source = |at: usize, tap: usize, size: usize| {
            (at + tap * c.dilation).checked_sub(half * c.dilation).filter(|&at| at < size)
        };
        for w in 0..c.width {
            for r in 0..c.kernel {
                let row = source(row, r, c.height);
                for s in 0..c.kernel {
                    let pixel = row.zip(source(w, s, c.width));
                    // SAFETY: the pixel is inside the image, which is a view of a live tensor, and
                    // the caller vouches for `to`.
                    unsafe {
                        match pixel {
                            Some((h, w)) => {
                                let pixel = (image * c.height + h) * c.width + w;
                                let from = self.pixel(c, pixel) as *const u8;
                                std::ptr::copy_nonoverlapping(from, to, bytes);
                            }
                            None => std::ptr::write_bytes(to, 0, bytes),
                        }
                        to = to.add(bytes);
                    }
                }
            }
        }
    }
}
