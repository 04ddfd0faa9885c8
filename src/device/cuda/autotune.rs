//! Autotuning for matmuls and convolutions: each algorithm is timed once per shape and the fastest
//! is cached on disk, so that every process on this machine uses the same one and results are
//! bit-identical. Without a place for the cache, the libraries' heuristic choice is used, which is
//! reproducible too.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::driver::{Algorithm, Driver, Event, Stream};
use crate::Result;
use crate::device::library_op::LibraryOp;
use crate::hex::hex;

/// Number of timed runs per algorithm.
const TRIALS: usize = 3;
/// An algorithm this many times slower than the best so far is not timed again.
const HOPELESS: f64 = 2.0;
/// Largest alignment in bytes that the memory of a trial may need.
const ALIGNMENT: usize = 256;

pub(super) struct Autotuner {
    /// The autotune cache: one line per shape, with the algorithm's name after a tab.
    file: Option<PathBuf>,
    gpu: String,
    /// Index and workspace of the algorithm by shape; None if there is no algorithm.
    made: HashMap<LibraryOp, Option<(usize, usize)>>,
}

impl Autotuner {
    /// Creates an empty table. `gpu` describes everything that timings depend on, and selects the
    /// file in `folder`.
    pub fn new(folder: Option<PathBuf>, gpu: &str) -> Autotuner {
        let digest = Sha256::digest(gpu);
        let name = hex(&digest[..8]);
        let file = folder.map(|folder| folder.join(format!("{name}.txt")));
        Autotuner { file, gpu: gpu.into(), made: HashMap::new() }
    }

    /// Returns the index and workspace of an op's algorithm, if there is one. The first op of a
    /// shape is autotuned, unless it is being captured into a graph (`recorded`): then it uses the
    /// library's first choice.
    pub fn of(
        &mut self,
        driver: &dyn Driver,
        stream: Stream,
        op: &LibraryOp,
        recorded: bool,
    ) -> Result<Option<(usize, usize)>> {
        let shape = op.shape();
        if let Some(made) = self.made.get(&shape) {
            return Ok(*made);
        }
        let algorithms = driver.algorithms(op)?;
        let algorithm = match &self.file {
            // Without a cache file nothing is timed: the next process would choose differently.
            Some(file) if algorithms.len() > 1 && !recorded => {
                let clock = [driver.event()?, driver.event()?];
                let time = |algorithm, best| {
                    seconds(driver, stream, op, algorithm, &algorithms[algorithm], best, clock).ok()
                };
                self.chosen(file, &shape.to_string(), &algorithms, time).unwrap_or(0)
            }
            _ => 0,
        };
        let made = algorithms.get(algorithm).map(|found| (algorithm, found.workspace));
        if !recorded {
            self.made.insert(shape, made);
        }
        Ok(made)
    }

    /// Returns the cached algorithm, or times all of them and caches the fastest. `time` takes an
    /// algorithm and the best time so far, and returns the algorithm's seconds.
    fn chosen(
        &self,
        file: &Path,
        shape: &str,
        algorithms: &[Algorithm],
        time: impl Fn(usize, f64) -> Option<f64>,
    ) -> std::io::Result<usize> {
        file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let mut open = OpenOptions::new().read(true).append(true).create(true).open(file)?;
        // Another process may be timing the same shape: wait for it, and use its result.
        open.lock()?;
        let mut text = String::new();
        open.read_to_string(&mut text)?;
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        let kept = lines
            .filter(|(of, _)| *of == shape)
            .find_map(|(_, name)| algorithms.iter().position(|algorithm| algorithm.name == name));
        if let Some(algorithm) = kept {
            return Ok(algorithm);
        }
        let mut best = None;
        for algorithm in 0..algorithms.len() {
            let so_far = best.map_or(f64::INFINITY, |(_, seconds)| seconds);
            let seconds = time(algorithm, so_far).filter(|&seconds| seconds < so_far);
            best = seconds.map(|seconds| (algorithm, seconds)).or(best);
        }
        // No algorithm could be timed, for lack of memory for example: this process uses the
        // library's first choice and caches nothing.
        let Some((fastest, _)) = best else { return Ok(0) };
        let mut line = format!("{shape}\t{}\n", algorithms[fastest].name);
        if text.is_empty() {
            line = format!("# {}\n{line}", self.gpu);
        } else if !text.ends_with('\n') {
            // A process was killed while writing its line.
            line.insert(0, '\n');
        }
        open.write_all(line.as_bytes())?;
        Ok(fastest)
    }
}

/// Returns the seconds that an algorithm takes: the minimum of several runs after a warm-up, or of
/// fewer if the `best` so far is out of reach. The output of an op that accumulates is left alone:
/// trials accumulate into scratch memory.
fn seconds(
    driver: &dyn Driver,
    stream: Stream,
    op: &LibraryOp,
    algorithm: usize,
    Algorithm { workspace, .. }: &Algorithm,
    best: f64,
    [from, to]: [Event; 2],
) -> Result<f64> {
    let sums = op.added_to();
    let space = driver.allocate(sums + workspace + 2 * ALIGNMENT)?;
    // The scratch address has the same alignment as the original.
    let elsewhere = |address: u64| space + address % ALIGNMENT as u64;
    let trial = if sums > 0 { op.written_to(elsewhere) } else { *op };
    let workspace = space + (sums + ALIGNMENT).next_multiple_of(ALIGNMENT) as u64;
    let run = || driver.compute(stream, &trial, algorithm, workspace);
    let time = || {
        driver.record(stream, from)?;
        run()?;
        driver.record(stream, to)?;
        driver.wait(to)?;
        driver.elapsed(from, to)
    };
    let least = run().and_then(|()| {
        let mut least = time()?;
        for _ in 1..TRIALS {
            if least < HOPELESS * best {
                least = least.min(time()?);
            }
        }
        Ok(least)
    });
    driver.free(space)?;
    least
}
