//! Parallel loops of the CPU backend. They run on the pool of the calling thread
//! ([`Workers::install`](super::workers::Workers::install)).

use std::cell::Cell;

use rayon::prelude::*;

use crate::Result;

thread_local! {
    /// Whether loops of this thread run on it alone.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, whose loops run on this thread alone, even if it belongs to a pool of the program's.
pub fn alone<R>(work: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    work()
}

/// Outside of a pool, rayon would start its global one, which is the program's.
fn is_alone() -> bool {
    ALONE.get() || rayon::current_thread_index().is_none()
}

/// Calls `work` for 0 to `count`, at least `least` of them in a row on one thread.
pub fn each(count: usize, least: usize, work: impl Fn(usize) + Send + Sync) {
    if is_alone() {
        return (0..count).for_each(work);
    }
    let tasks = (0..count).into_par_iter();
    match least {
        0 | 1 => tasks.with_max_len(1).for_each(work),
        _ => tasks.with_min_len(least).for_each(work),
    }
}

/// Calls `work` for 0 to `count`, each a task of its own, until one fails.
pub fn try_each(count: usize, work: impl Fn(usize) -> Result<()> + Send + Sync) -> Result<()> {
    if is_alone() {
        return (0..count).try_for_each(work);
    }
    (0..count).into_par_iter().with_max_len(1).try_for_each(work)
}

/// Returns what `work` makes of 0 to `count`.
pub fn map<T: Send>(count: usize, work: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
    if is_alone() {
        return (0..count).map(work).collect();
    }
    (0..count).into_par_iter().map(work).collect()
}
