//! The threads that the host device computes with.

use crate::{Error, Result};

pub(super) struct Workers {
    pub count: usize,
    /// None where the thread that made the device is itself part of the pool.
    pool: Option<rayon::ThreadPool>,
}

impl Workers {
    /// 0 means one thread per core.
    pub fn new(threads: usize) -> Result<Workers> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { cores } else { threads };
        let build = |builder: rayon::ThreadPoolBuilder| {
            let pool = builder.num_threads(threads).build();
            pool.map_err(|e| Error::device(format!("cannot start {threads} threads: {e}")))
        };
        // The calling thread works too, which saves a hand-over per launch. It can belong to one
        // pool only: a second device made on the same thread hands its work over.
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

    /// Runs `work` where its parallel parts use this device's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}
