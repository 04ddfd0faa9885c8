//! Convolutions as matmuls, without im2col. Undilated, the taps of a filter row are adjacent in
//! memory (`runs`); dilated, they are not (`dilated`). Undilated 3×3 filters of many channels take
//! fewer multiplications (`winograd`).
//!
//! Output rows are independent, so they are spread over the threads. No sum depends on how the work
//! was spread, so the results are bit-identical for any number of threads.

mod dilated;
mod filter;
mod runs;
mod winograd;

use crate::Result;
use crate::device::library_op::Convolution;
use runs::Runs;

pub(super) fn convolution(c: &Convolution) -> Result<()> {
    match (winograd::takes(c), c.dilation) {
        (true, _) => winograd::convolution(c),
        (false, 1) => Runs(c).convolve(),
        _ => dilated::convolution(c),
    }
}
