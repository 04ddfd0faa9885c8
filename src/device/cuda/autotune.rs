//! Autotuning for matmuls and convolutions: each algorithm is timed once per shape and the fastest
//! is cached on disk, so that every process on this machine uses the same one and results are
//! bit-identical. Without a place for the cache, the libraries' heuristic choice is used, which is
//! reproducible too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use super::choices::{Choices, Trial};
use super::driver::{Algorithm, Driver, Event, Stream};
use crate::device::backend::Way;
use crate::device::library_op::LibraryOp;
use crate::{Error, Result};

/// Number of timed runs per algorithm.
const TRIALS: usize = 3;
/// An algorithm this many times slower than the best so far is not timed again.
const HOPELESS: f64 = 2.0;
/// Largest alignment in bytes that the memory of a trial may need.
const ALIGNMENT: usize = 256;

pub(super) struct Autotuner {
    /// None without a place for the cache.
    choices: Option<Choices>,
    /// Index and workspace of the algorithm by shape; None if there is no algorithm.
    algorithms: RefCell<HashMap<LibraryOp, Option<(usize, usize)>>>,
    /// Index of the fastest way to compute an op, by shape.
    ways: RefCell<HashMap<LibraryOp, usize>>,
}

impl Autotuner {
    /// Creates an empty table. `gpu` describes everything that timings depend on.
    pub fn new(folder: Option<PathBuf>, gpu: &str) -> Autotuner {
        let choices = folder.map(|folder| Choices::new(&folder, gpu));
        Autotuner { choices, algorithms: RefCell::default(), ways: RefCell::default() }
    }

    /// Returns the index and workspace of an op's algorithm if it was chosen before.
    pub fn known(&self, op: &LibraryOp) -> Option<Option<(usize, usize)>> {
        self.algorithms.borrow().get(&op.shape()).copied()
    }

    /// Chooses an op's algorithm, if there is one, by timing them all. An op that is being captured
    /// into a graph (`recorded`) uses the library's first choice.
    ///
    /// # Errors
    /// Fails if no algorithm runs, for another reason than lack of memory.
    pub fn choose(
        &self,
        driver: &dyn Driver,
        stream: Stream,
        op: &LibraryOp,
        recorded: bool,
    ) -> Result<Option<(usize, usize)>> {
        let algorithms = driver.algorithms(op)?;
        let names: Vec<&str> = algorithms.iter().map(|algorithm| &*algorithm.name).collect();
        let chosen = match &self.choices {
            // Without a cache nothing is timed: the next process would choose differently.
            Some(choices) if algorithms.len() > 1 && !recorded => {
                let timer = Timer::new(driver, stream)?;
                let time = |index: usize, best| {
                    timer.trial(timer.algorithm(op, (index, &algorithms[index]), best))
                };
                choices.fastest(&op.shape().to_string(), &names, &time)?
            }
            _ => Some(0),
        };
        if chosen.is_none() {
            // The library's first choice is no measure for other ways to compute the op.
            self.ways.borrow_mut().insert(op.shape(), 0);
        }
        let chosen = chosen.unwrap_or(0);
        let chosen = algorithms.get(chosen).map(|found| (chosen, found.workspace));
        if !recorded {
            self.algorithms.borrow_mut().insert(op.shape(), chosen);
        }
        Ok(chosen)
    }

    /// Returns the index of the fastest way to compute an op if it was timed before.
    pub fn known_way(&self, op: &LibraryOp) -> Option<usize> {
        self.ways.borrow().get(&op.shape()).copied()
    }

    /// Returns the index of the fastest of several ways to compute an op, by timing them all.
    pub fn fastest(
        &self,
        driver: &dyn Driver,
        stream: Stream,
        op: &LibraryOp,
        ways: &[Way],
        recorded: bool,
    ) -> Result<usize> {
        if recorded {
            return Ok(0);
        }
        let fastest = match &self.choices {
            Some(choices) => {
                let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
                let key = format!("{}: {}", op.shape(), names.join(" or "));
                let timer = Timer::new(driver, stream)?;
                let time = |index: usize, best| timer.trial(timer.seconds(ways[index].run, best));
                choices.fastest(&key, &names, &time)?.unwrap_or(0)
            }
            None => 0,
        };
        self.ways.borrow_mut().insert(op.shape(), fastest);
        Ok(fastest)
    }
}

/// Times work on a stream.
struct Timer<'a> {
    driver: &'a dyn Driver,
    stream: Stream,
    from: Event,
    to: Event,
}

impl Timer<'_> {
    fn new(driver: &dyn Driver, stream: Stream) -> Result<Timer<'_>> {
        Ok(Timer { driver, stream, from: driver.event()?, to: driver.event()? })
    }

    /// Returns what came of a trial.
    ///
    /// # Errors
    /// Fails if the device does not work any more after a trial that failed.
    fn trial(&self, seconds: Result<f64>) -> Result<Trial> {
        match seconds {
            Ok(seconds) => Ok(Trial::Seconds(seconds)),
            Err(problem) => {
                self.driver.synchronize(self.stream)?;
                Ok(match problem {
                    Error::OutOfMemory(_) => Trial::NoRoom,
                    other => Trial::Failed(other),
                })
            }
        }
    }

    /// Returns the seconds that some work takes: the minimum of several runs after a warm-up, or of
    /// fewer if the `best` so far is out of reach.
    fn seconds(&self, run: &dyn Fn() -> Result<()>, best: f64) -> Result<f64> {
        let time = || {
            self.driver.record(self.stream, self.from)?;
            run()?;
            self.driver.record(self.stream, self.to)?;
            self.driver.wait(self.to)?;
            self.driver.elapsed(self.from, self.to)
        };
        run()?;
        let mut least = time()?;
        for _ in 1..TRIALS {
            if least < HOPELESS * best {
                least = least.min(time()?);
            }
        }
        Ok(least)
    }

    /// Returns the seconds that an algorithm takes. The output of an op that accumulates is left
    /// alone: trials accumulate into scratch memory.
    fn algorithm(
        &self,
        op: &LibraryOp,
        (index, Algorithm { workspace, .. }): (usize, &Algorithm),
        best: f64,
    ) -> Result<f64> {
        let sums = op.added_to();
        let space = self.driver.allocate(sums + workspace + 2 * ALIGNMENT)?;
        // The scratch address has the same alignment as the original.
        let elsewhere = |address: u64| space + address % ALIGNMENT as u64;
        let trial = if sums > 0 { op.written_to(elsewhere) } else { *op };
        let workspace = space + (sums + ALIGNMENT).next_multiple_of(ALIGNMENT) as u64;
        let run = || self.driver.compute(self.stream, &trial, index, workspace);
        let seconds = self.seconds(&run, best);
        // Work that was submitted before a failure may still use the memory.
        let finished = if seconds.is_err() { self.driver.synchronize(self.stream) } else { Ok(()) };
        let freed = self.driver.free(space);
        match (seconds, finished.and(freed)) {
            (Ok(_), Err(e)) => Err(e),
            (seconds, _) => seconds,
        }
    }
}
