//! Runs a kernel's blocks on the thread pool.

use std::ffi::c_void;

use rayon::prelude::*;

use super::Host;
use crate::device::launch::{Arg, Grid, Kernel, SoloBody, SoloLaunch, Types};
use crate::{Error, Result};

/// Argument values, and pointers to them: what a solo body is called with.
struct Values {
    words: Vec<u64>,
}

pub(super) fn launch(
    host: &Host,
    kernel: &'static Kernel,
    types: Types,
    grid: Grid,
    args: &[Arg],
) -> Result<()> {
    let body = (kernel.solo.iter())
        .filter(|solo| solo.types == types && solo.level <= host.level)
        .max_by_key(|solo| solo.level)
        .ok_or_else(|| Error::device(format!("{} was not built for {types:?}", kernel.name)))?
        .body;
    let values = Values::new(types, args);
    // A few tasks per thread even out blocks of unequal cost.
    let tasks = (host.threads as i64 * 4).min(grid.blocks);
    if tasks == 1 || host.threads == 1 {
        values.call(body, grid, 0, grid.blocks);
        return Ok(());
    }
    host.install(|| {
        (0..tasks as usize).into_par_iter().with_max_len(1).for_each(|task| {
            let cut = |task: usize| grid.blocks * task as i64 / tasks;
            values.call(body, grid, cut(task), cut(task + 1));
        });
    });
    Ok(())
}

impl Values {
    fn new(types: Types, args: &[Arg]) -> Values {
        let word = |arg: &Arg| match *arg {
            Arg::Pointer { tensor, .. } => tensor.map_or(0, |t| t.address()),
            Arg::I64(x) => x as u64,
            Arg::I32(x) => x as u32 as u64,
            Arg::U64(x) => x,
            Arg::Real(x) => match types {
                Types::F32 => (x as f32).to_bits() as u64,
                Types::F64 => x.to_bits(),
            },
        };
        Values { words: args.iter().map(word).collect() }
    }

    /// Runs blocks `begin..end` one after another on this thread.
    fn call(&self, body: SoloBody, grid: Grid, begin: i64, end: i64) {
        let mut pointers: Vec<*mut c_void> =
            self.words.iter().map(|word| word as *const u64 as *mut c_void).collect();
        let mut shared = vec![0u64; grid.shared.div_ceil(8)];
        let launch =
            SoloLaunch { begin, end, count: grid.blocks, shared: shared.as_mut_ptr().cast() };
        // SAFETY: the launcher was generated from the kernel's signature, so there are as many
        // values as parameters, each as wide as its word's low bytes (little endian); pointers are
        // tensors that outlive the call. That accesses stay inside them is the kernel's duty.
        unsafe { body(pointers.as_mut_ptr(), &launch) };
    }
}
