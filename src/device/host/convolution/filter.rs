//! A convolution's filter as matrices, and in other memory orders.

use crate::device::host::tasks::{each, try_each};
use crate::device::library_op::{Convolution, Matrix};
use crate::dtype::DType;
use crate::{Error, Result};

/// Rows that are worth handing to another core when they are copied.
const ROWS_PER_TASK: usize = 16;

/// Views one tap of the filter as a K×C matrix.
pub fn filter(c: &Convolution, (r, s): (usize, usize)) -> Matrix {
    Matrix {
        address: c.w + ((r * c.kernel + s) * c.channels * c.dtype.bytes()) as u64,
        dtype: c.dtype,
        rows: c.filters,
        cols: c.channels,
        row_stride: (c.kernel * c.kernel * c.channels) as isize,
        col_stride: 1,
    }
}

/// Sets the whole filter to 0.
pub fn clear_filter(c: &Convolution) {
    let bytes = c.filters * c.kernel * c.kernel * c.channels * c.dtype.bytes();
    // SAFETY: the filter is a live tensor of this many bytes.
    unsafe { std::ptr::write_bytes(c.w as *mut u8, 0, bytes) };
}

/// The filter in R,S,C,K order. Without it, the matmul would transpose its operand again for every
/// row of the image.
pub struct Transposed {
    /// Elements of the convolution's type.
    pub storage: Vec<u64>,
}

impl Transposed {
    pub fn new(c: &Convolution) -> Result<Transposed> {
        let taps = c.kernel * c.kernel;
        let bytes = taps * c.channels * c.filters * c.dtype.bytes();
        let mut storage = vec![0u64; bytes.div_ceil(8)];
        let to = storage.as_mut_ptr() as u64;
        let tap_bytes = c.channels * c.filters * c.dtype.bytes();
        try_each(taps, |tap| {
            let from = filter(c, (tap / c.kernel, tap % c.kernel));
            let to = to + (tap * tap_bytes) as u64;
            // SAFETY: `from` views the live filter, and `to` is this tap's own part of `storage`.
            match c.dtype {
                DType::F32 => unsafe { transpose::<f32>(from, to) },
                DType::F64 => unsafe { transpose::<f64>(from, to) },
                other => return Err(Error::device(format!("no convolution for {other:?}"))),
            }
            Ok(())
        })?;
        Ok(Transposed { storage })
    }

    /// Views one tap as a C×K matrix.
    pub fn tap(&self, c: &Convolution, (r, s): (usize, usize)) -> Matrix {
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

/// Writes the transpose of `from`, whose columns are adjacent in memory, tile by tile.
///
/// # Safety
/// `from` can be read, and as many elements can be written at `to`.
unsafe fn transpose<N: Copy>(from: Matrix, to: u64) {
    const TILE: usize = 16;
    let (source, target) = (from.address as *const N, to as *mut N);
    for row in (0..from.rows).step_by(TILE) {
        for col in (0..from.cols).step_by(TILE) {
            for c in col..from.cols.min(col + TILE) {
                for r in row..from.rows.min(row + TILE) {
                    // SAFETY: `r` and `c` are inside the matrix.
                    unsafe {
                        let value = *source.offset(r as isize * from.row_stride + c as isize);
                        *target.add(c * from.rows + r) = value;
                    }
                }
            }
        }
    }
}

/// Returns the filter in R,S,K,C order with its taps reversed: the input gradient is a convolution
/// with it.
pub fn turned(c: &Convolution) -> Vec<u64> {
    let (taps, bytes) = (c.kernel * c.kernel, c.channels * c.dtype.bytes());
    let mut storage = vec![0u64; (taps * c.filters * bytes).div_ceil(8)];
    let to = storage.as_mut_ptr() as u64;
    each(taps * c.filters, ROWS_PER_TASK, |row| {
        let (tap, k) = (taps - 1 - row / c.filters, row % c.filters);
        let from = filter(c, (tap / c.kernel, tap % c.kernel));
        let from = from.address + (k * from.row_stride as usize * c.dtype.bytes()) as u64;
        // SAFETY: `from` is the channels of one tap and filter of the live filter, and each task
        // writes its own row of `storage`.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from as *const u8,
                (to as usize + row * bytes) as *mut u8,
                bytes,
            )
        };
    });
    storage
}
