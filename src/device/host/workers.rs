//! The worker threads of the CPU backend.

use crate::{Error, Result};

pub(super) struct Workers {
    pub count: usize,
    /// None if the thread that created the device is itself part of the pool.
    pool: Option<rayon::ThreadPool>,
}

impl Workers {
    /// Starts `threads` threads; 0 means one per core.
    pub fn new(threads: usize) -> Result<Workers> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { cores } else { threads };
        let build = |builder: rayon::ThreadPoolBuilder| {
            let pool = builder.num_threads(threads).build();
            pool.map_err(|e| Error::device(format!("cannot start {threads} threads: {e}")))
        };
        // The calling thread works too, which saves a handoff per launch. It can belong to only one
        // pool, so a second device created on the same thread hands its work over.
        let pool = if rayon::current_thread_index().is_none() {
            std::mem::forget(build(rayon::ThreadPoolBuilder::new().use_current_thread())?);
            None
        } else if rayon::current_num_threads() == threads {
            None
        } else {
            Some(build(rayon::ThreadPoolBuilder::new())?)
        };
        Ok(Workers { count: threads, pool })
    }

    /// Runs `work` such that its parallel parts use this device's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}
