//! The worker threads of the CPU backend.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::tasks;
use crate::{Error, Result};

pub(super) struct Workers {
    pub count: usize,
    /// Started where it is first needed: not for one thread, which is the caller's, nor if work
    /// always comes from a thread of a pool as large.
    pool: OnceLock<Pool>,
}

/// Threads that end with this.
struct Pool {
    /// None only while it is dropped.
    threads: Option<rayon::ThreadPool>,
    handles: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Pool {
    fn start(count: usize) -> Result<Pool> {
        let handles = Arc::new(Mutex::new(Vec::with_capacity(count)));
        let kept = Arc::clone(&handles);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .spawn_handler(move |thread| {
                let named = std::thread::Builder::new().name("udass-raw".into());
                let handle = named.spawn(|| thread.run())?;
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
                Ok(())
            })
            .build()
            .map_err(|e| Error::device(format!("cannot start {count} threads: {e}")))?;
        Ok(Pool { threads: Some(threads), handles })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(threads) = self.threads.take() else { return };
        // One of the threads cannot wait for itself; it ends when it returns to the pool.
        let inside = threads.current_thread_index().is_some();
        drop(threads);
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if !inside {
            handles.drain(..).for_each(|handle| drop(handle.join()));
        }
    }
}

impl Workers {
    /// Starts `threads` threads; 0 means one per core. One thread is the calling one.
    pub fn new(threads: usize) -> Result<Workers> {
        let workers = Workers { count: count(threads), pool: OnceLock::new() };
        if workers.count > 1 && !workers.are_here() {
            workers.pool()?;
        }
        Ok(workers)
    }

    fn pool(&self) -> Result<&rayon::ThreadPool> {
        if self.pool.get().is_none() {
            // Another thread may have been faster; then this one's threads end again.
            let _ = self.pool.set(Pool::start(self.count)?);
        }
        let started = self.pool.get().and_then(|pool| pool.threads.as_ref());
        started.ok_or_else(|| Error::device("the worker threads have ended"))
    }

    /// Returns whether the calling thread belongs to a pool of as many threads. That pool does the
    /// work itself, which saves a handoff per launch ([`join_workers`]).
    fn are_here(&self) -> bool {
        rayon::current_thread_index().is_some() && rayon::current_num_threads() == self.count
    }

    /// Runs `work` such that its parallel parts use this device's threads, and no other threads of
    /// the program.
    ///
    /// # Errors
    /// Fails if the threads cannot be started.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        if self.count == 1 {
            return Ok(tasks::alone(work));
        }
        if self.are_here() {
            return Ok(work());
        }
        Ok(self.pool()?.install(work))
    }
}

/// Returns the number of threads; 0 means one per core.
fn count(threads: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    if threads == 0 { cores() } else { threads }
}

/// Makes the calling thread one of `threads` worker threads (0: one per core) until the process
/// ends, so that devices with as many threads need not hand their work over, which saves some
/// microseconds per launch. This is for programs, not for libraries: it builds rayon's global pool.
///
/// # Errors
/// Fails if the program has built that pool already, or threads cannot be started.
pub fn join_workers(threads: usize) -> Result<()> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(count(threads)).use_current_thread();
    builder.build_global().map_err(|e| Error::device(format!("cannot join the workers: {e}")))
}
