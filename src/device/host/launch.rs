//! Runs a kernel's blocks on the thread pool.

use std::ffi::c_void;

use super::denormals::FlushToZero;
use super::tasks::each;
use super::workers::Workers;
use crate::device::launch::{Grid, Kernel, Level, SerialBody, SerialLaunch};
use crate::device::precision::Types;
use crate::{Error, Result};

/// Runs the build for the widest instruction set up to `level`. `words` are the arguments as
/// returned by [`Arg::word`](crate::device::Arg::word).
pub(super) fn launch(
    workers: &Workers,
    level: Level,
    kernel: &'static Kernel,
    types: Types,
    grid: Grid,
    words: &[u64],
) -> Result<()> {
    let body = (kernel.serial.iter())
        .filter(|serial| serial.types == types && serial.level <= level)
        .max_by_key(|serial| serial.level)
        .ok_or_else(|| Error::device(format!("{} was not built for {types:?}", kernel.name)))?
        .body;
    // A few tasks per thread even out blocks of unequal cost.
    let tasks = (workers.count as i64 * 4).min(grid.blocks);
    if tasks <= 1 || workers.count == 1 {
        call(words, body, grid, 0, grid.blocks);
        return Ok(());
    }
    workers.install(|| {
        each(tasks as usize, 1, |task| {
            let cut =
                |task: usize| (i128::from(grid.blocks) * task as i128 / i128::from(tasks)) as i64;
            call(words, body, grid, cut(task), cut(task + 1));
        });
    })
}

/// Runs blocks `begin..end` one after another on this thread.
fn call(words: &[u64], body: SerialBody, grid: Grid, begin: i64, end: i64) {
    let mut pointers: Vec<*mut c_void> =
        words.iter().map(|word| word as *const u64 as *mut c_void).collect();
    // The contents are unspecified, as on the GPU.
    let mut shared = Vec::<u64>::with_capacity(grid.shared.div_ceil(8));
    let launch =
        SerialLaunch { begin, end, count: grid.blocks, shared: shared.as_mut_ptr().cast() };
    let _flushed = FlushToZero::new();
    // SAFETY: the launcher was generated from the kernel's signature, so there are as many values
    // as parameters, each as wide as the low bytes of its word (little endian), and pointers refer
    // to tensors that outlive the call. Kernels are responsible for staying within them.
    unsafe { body(pointers.as_mut_ptr(), &launch) };
}
