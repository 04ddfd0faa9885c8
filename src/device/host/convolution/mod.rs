//! Convolutions as products, without gathering patches. Undilated, the taps of a filter row are
//! neighbours in memory (`runs`); dilated, they are not (`dilated`).
//!
//! Output rows are independent, so they are spread over the threads. No sum depends on how the work was
//! spread, so the number of threads does not change a bit.

mod dilated;
mod filter;
mod runs;

use crate::Result;
use crate::device::job::Convolution;
use runs::Runs;

pub(super) fn convolution(c: &Convolution) -> Result<()> {
    match c.dilation {
        1 => Runs(c).convolve(),
        _ => dilated::convolution(c),
    }
}
