//! Which of its ways each product and convolution takes. Each way is timed once, and the fastest is kept
//! on disk: every process on this machine takes the same, so that its bits repeat. Where nothing can be
//! kept, the library's favourites are taken, which do.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::driver::{Driver, Event, Stream, Way};
use crate::Result;
use crate::device::job::Job;

/// How often a way is timed.
const TRIALS: usize = 3;
/// How many times the best time so far is too much to time a way again.
const HOPELESS: f64 = 2.0;
/// What the memory of a trial may have to be a multiple of.
const ALIGNMENT: usize = 256;

pub(super) struct Choices {
    /// A line for each shape: the name of its way, behind a tab.
    file: Option<PathBuf>,
    gpu: String,
    /// By shape: a way's place among all, and its workspace; None: there is no way.
    made: HashMap<Job, Option<(usize, usize)>>,
}

impl Choices {
    /// `gpu`: all that times depend on.
    pub fn new(folder: Option<PathBuf>, gpu: &str) -> Choices {
        let digest = Sha256::digest(gpu);
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let file = folder.map(|folder| folder.join(format!("{name}.txt")));
        Choices { file, gpu: gpu.into(), made: HashMap::new() }
    }

    /// A job's way and its workspace, if there is one. The first of a shape is timed, unless it is to
    /// be `recorded`: then it takes the library's favourite.
    pub fn of(
        &mut self,
        driver: &dyn Driver,
        stream: Stream,
        job: &Job,
        recorded: bool,
    ) -> Result<Option<(usize, usize)>> {
        let shape = job.shape();
        if let Some(made) = self.made.get(&shape) {
            return Ok(*made);
        }
        let ways = driver.ways(job)?;
        let way = match &self.file {
            // What is not kept must not be taken: the next process would not know of it.
            Some(file) if ways.len() > 1 && !recorded => {
                let clock = [driver.event()?, driver.event()?];
                let time =
                    |way, best| seconds(driver, stream, job, way, &ways[way], best, clock).ok();
                self.chosen(file, &shape.to_string(), &ways, time).unwrap_or(0)
            }
            _ => 0,
        };
        let made = ways.get(way).map(|found| (way, found.workspace));
        if !recorded {
            self.made.insert(shape, made);
        }
        Ok(made)
    }

    /// What is kept, or else the fastest, which is kept from now on. `time` tells a way's seconds, and
    /// is told the best so far.
    fn chosen(
        &self,
        file: &Path,
        shape: &str,
        ways: &[Way],
        time: impl Fn(usize, f64) -> Option<f64>,
    ) -> std::io::Result<usize> {
        file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let mut open = OpenOptions::new().read(true).append(true).create(true).open(file)?;
        // Another process may be timing the same: this one waits, and takes what that one found.
        open.lock()?;
        let mut text = String::new();
        open.read_to_string(&mut text)?;
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        let kept = lines
            .filter(|(of, _)| *of == shape)
            .find_map(|(_, name)| ways.iter().position(|way| way.name == name));
        if let Some(way) = kept {
            return Ok(way);
        }
        let mut best = None;
        for way in 0..ways.len() {
            let so_far = best.map_or(f64::INFINITY, |(_, seconds)| seconds);
            let seconds = time(way, so_far).filter(|&seconds| seconds < so_far);
            best = seconds.map(|seconds| (way, seconds)).or(best);
        }
        // None could be timed, for lack of memory, say: in this process the favourite has to do.
        let Some((fastest, _)) = best else { return Ok(0) };
        let mut line = format!("{shape}\t{}\n", ways[fastest].name);
        if text.is_empty() {
            line = format!("# {}\n{line}", self.gpu);
        } else if !text.ends_with('\n') {
            // A process was killed within its line.
            line.insert(0, '\n');
        }
        open.write_all(line.as_bytes())?;
        Ok(fastest)
    }
}

/// Seconds that a way takes, the least of some runs behind a first, of fewer where the `best` so far is
/// out of reach. What a job adds to stays as it is: a trial adds elsewhere.
fn seconds(
    driver: &dyn Driver,
    stream: Stream,
    job: &Job,
    way: usize,
    Way { workspace, .. }: &Way,
    best: f64,
    [from, to]: [Event; 2],
) -> Result<f64> {
    let sums = job.added_to();
    let space = driver.allocate(sums + workspace + 2 * ALIGNMENT)?;
    // At a multiple of the same powers of two.
    let elsewhere = |address: u64| space + address % ALIGNMENT as u64;
    let trial = if sums > 0 { job.written_to(elsewhere) } else { *job };
    let workspace = space + (sums + ALIGNMENT).next_multiple_of(ALIGNMENT) as u64;
    let run = || driver.compute(stream, &trial, way, workspace);
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
