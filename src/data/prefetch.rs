//! Prefetching: worker threads prepare items ahead of time, which are handed out in order.
//!
//! An item consists of parts, and the parts are what the workers share, so that a batch of many
//! crops keeps all of them busy. The result does not depend on which worker prepares a part, or
//! when.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use crate::error::{Error, Result};

/// Prepares items. Every method is a function of its arguments alone.
pub trait Task: Send + Sync + 'static {
    /// One part of an item.
    type Part: Send;
    /// A complete item.
    type Item: Send;

    /// Returns the number of parts of an item (at least one), or None after the last item.
    fn parts(&self, item: u64) -> Option<usize>;

    /// Prepares one part of an item.
    fn part(&self, item: u64, part: usize) -> Result<Self::Part>;

    /// Assembles an item from its parts, which are in order.
    fn join(&self, item: u64, parts: Vec<Self::Part>) -> Result<Self::Item>;
}

/// Prepares items in background threads, at most `ahead` more than were taken.
pub struct Prefetcher<J: Task> {
    shared: Arc<Shared<J>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared<J: Task> {
    job: J,
    ahead: u64,
    state: Mutex<State<J>>,
    /// Wakes the workers: an item was taken, or the prefetcher was dropped.
    room: Condvar,
    /// Wakes the consumer: the next item is done.
    ready: Condvar,
}

struct State<J: Task> {
    /// The item that is taken next; `items` starts with it.
    next: u64,
    items: VecDeque<Slot<J>>,
    /// Item and part that the next idle worker prepares.
    claim: (u64, usize),
    stop: bool,
}

enum Slot<J: Task> {
    Making { parts: Vec<Option<Result<J::Part>>>, missing: usize },
    Joining,
    Done(Result<J::Item>),
}

impl<J: Task> Prefetcher<J> {
    /// Starts to prepare items from `first` on, with `threads` threads (0: one per core).
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(job: J, first: u64, threads: usize, ahead: usize) -> Result<Self> {
        let state = State { next: first, items: VecDeque::new(), claim: (first, 0), stop: false };
        let shared = Arc::new(Shared {
            job,
            ahead: ahead.max(1) as u64,
            state: Mutex::new(state),
            room: Condvar::new(),
            ready: Condvar::new(),
        });
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let mut prefetcher = Prefetcher { shared, workers: Vec::with_capacity(threads) };
        for i in 0..threads {
            let shared = Arc::clone(&prefetcher.shared);
            let thread = std::thread::Builder::new().name(format!("data-{i}"));
            let worker = thread.spawn(move || shared.work()).map_err(|e| {
                Error::config(format!("cannot start data.workers = {threads} threads: {e}"))
            })?;
            prefetcher.workers.push(worker);
        }
        Ok(prefetcher)
    }
}

impl<J: Task> Iterator for Prefetcher<J> {
    type Item = Result<J::Item>;

    /// Returns the next item, waiting until it is ready, or None after the last one. An item that
    /// could not be prepared yields the error of its first failing part, and the next call
    /// continues with the item after it.
    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        self.shared.job.parts(state.next)?;
        while !matches!(state.items.front(), Some(Slot::Done(_))) {
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(Slot::Done(item)) = state.items.pop_front() else { return None };
        state.next += 1;
        drop(state);
        self.shared.room.notify_all();
        Some(item)
    }
}

impl<J: Task> Drop for Prefetcher<J> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A panic inside a job was caught in the worker and returned as an error.
            let _ = worker.join();
        }
    }
}

impl<J: Task> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some((item, part)) = self.claim() {
            let made = guarded(|| self.job.part(item, part));
            let mut state = self.lock();
            let Some(parts) = state.store(item, part, made) else { continue };
            drop(state);
            // This was the last part. Joining copies megabytes, so it happens outside the lock.
            let parts: Result<Vec<_>> = parts.into_iter().flatten().collect();
            let joined = parts.and_then(|parts| guarded(|| self.job.join(item, parts)));
            let mut state = self.lock();
            let next = state.next;
            if let Some(slot) = state.slot(item) {
                *slot = Slot::Done(joined);
            }
            drop(state);
            if item == next {
                self.ready.notify_one();
            }
        }
    }

    /// Claims the next part to prepare, waiting until fewer than `ahead` items are ready or in
    /// progress. Returns None when there is nothing left to do.
    fn claim(&self) -> Option<(u64, usize)> {
        let mut state = self.lock();
        loop {
            let (item, part) = state.claim;
            if state.stop {
                return None;
            }
            let count = self.job.parts(item)?;
            if item < state.next + self.ahead {
                if part == 0 {
                    let parts = (0..count).map(|_| None).collect();
                    state.items.push_back(Slot::Making { parts, missing: count });
                }
                state.claim = if part + 1 < count { (item, part + 1) } else { (item + 1, 0) };
                return Some((item, part));
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<J: Task> State<J> {
    fn slot(&mut self, item: u64) -> Option<&mut Slot<J>> {
        self.items.get_mut((item - self.next) as usize)
    }

    /// Stores a part. Returns all parts of the item if this was the last missing one.
    fn store(
        &mut self,
        item: u64,
        part: usize,
        made: Result<J::Part>,
    ) -> Option<Vec<Option<Result<J::Part>>>> {
        let slot = self.slot(item)?;
        let Slot::Making { parts, missing } = slot else { return None };
        parts[part] = Some(made);
        *missing -= 1;
        if *missing > 0 {
            return None;
        }
        match std::mem::replace(slot, Slot::Joining) {
            Slot::Making { parts, .. } => Some(parts),
            _ => None,
        }
    }
}

/// Converts a panic to an error, so that a panicking worker does not leave the consumer waiting
/// forever.
fn guarded<T>(make: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Error::config(format!("a data worker panicked (please report this): {text}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Squares {
        last: u64,
    }

    impl Task for Squares {
        type Part = u64;
        type Item = Vec<u64>;

        fn parts(&self, item: u64) -> Option<usize> {
            (item <= self.last).then_some(1 + item as usize % 3)
        }

        fn part(&self, item: u64, part: usize) -> Result<u64> {
            // Vary the delay so that items finish out of order when there are several threads.
            std::thread::sleep(std::time::Duration::from_micros(300 * (item * 7 % 5)));
            match (item, part) {
                (5, 1) => Err(Error::config("five, one")),
                (5, 2) => Err(Error::config("five, two")),
                (7, 0) => panic!("seven"),
                _ => Ok(item * item + part as u64),
            }
        }

        fn join(&self, _: u64, parts: Vec<u64>) -> Result<Vec<u64>> {
            Ok(parts)
        }
    }

    #[test]
    fn items_come_in_order_whatever_the_threads_and_errors_in_their_place() {
        for threads in [1, 2, 7] {
            for ahead in [0, 1, 4] {
                let mut items = Prefetcher::new(Squares { last: 9 }, 2, threads, ahead).unwrap();
                for item in 2..=9u64 {
                    let got = items.next().unwrap();
                    match item {
                        5 => assert_eq!(got.unwrap_err().to_string(), "five, one"),
                        7 => assert!(got.unwrap_err().to_string().ends_with("seven")),
                        _ => {
                            let parts = 0..1 + item % 3;
                            let expected: Vec<u64> = parts.map(|p| item * item + p).collect();
                            assert_eq!(got.unwrap(), expected);
                        }
                    }
                }
                assert!(items.next().is_none());
                assert!(items.next().is_none());
            }
        }
    }

    #[test]
    fn dropping_early_ends_the_threads() {
        let mut items = Prefetcher::new(Squares { last: u64::MAX }, 10, 3, 8).unwrap();
        let shared = Arc::downgrade(&items.shared);
        items.next();
        drop(items);
        assert_eq!(shared.strong_count(), 0);
    }
}
