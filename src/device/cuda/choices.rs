//! Which of its ways each convolution takes. Each is timed once, and the fastest is kept on disk: every
//! process on this machine takes the same, so that its bits repeat. Where nothing can be kept, the
//! library's favourites are taken, which do.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::driver::{Driver, Event, Stream, Way};
use crate::device::backend::Convolution;
use crate::{Error, Result};

/// How often a way is timed.
const TRIALS: usize = 3;
/// What the memory of a trial may have to be a multiple of.
const ALIGNMENT: usize = 256;

pub(super) struct Choices {
    /// A line for each shape: the name of its way, behind a tab.
    file: Option<PathBuf>,
    gpu: String,
    /// By shape: a way's place among all, and its workspace.
    made: HashMap<Convolution, (usize, usize)>,
}

impl Choices {
    /// `gpu`: all that times depend on.
    pub fn new(folder: Option<PathBuf>, gpu: &str) -> Choices {
        let digest = Sha256::digest(gpu);
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let file = folder.map(|folder| folder.join(format!("{name}.txt")));
        Choices { file, gpu: gpu.into(), made: HashMap::new() }
    }

    /// A convolution's way and its workspace. The first of a shape is timed, unless it is to be
    /// `recorded`: then it takes the library's favourite.
    pub fn of(
        &mut self,
        driver: &dyn Driver,
        stream: Stream,
        c: &Convolution,
        recorded: bool,
    ) -> Result<(usize, usize)> {
        if let Some(made) = self.made.get(&c.shape()) {
            return Ok(*made);
        }
        let ways = driver.ways(c)?;
        let way = match &self.file {
            // What is not kept must not be taken: the next process would not know of it.
            Some(file) if ways.len() > 1 && !recorded => {
                let clock = [driver.event()?, driver.event()?];
                let time = |way| seconds(driver, stream, c, way, &ways[way], clock).ok();
                self.chosen(file, &c.shape().to_string(), &ways, time).unwrap_or(0)
            }
            _ => 0,
        };
        let workspace = ways.get(way).map(|way| way.workspace);
        let made = (way, workspace.ok_or_else(|| Error::device(format!("no way for {c}")))?);
        if !recorded {
            self.made.insert(c.shape(), made);
        }
        Ok(made)
    }

    /// What is kept, or else the fastest, which is kept from now on.
    fn chosen(
        &self,
        file: &Path,
        shape: &str,
        ways: &[Way],
        time: impl FnMut(usize) -> Option<f64>,
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
        let seconds = (0..ways.len()).map(time).enumerate();
        let seconds = seconds.filter_map(|(way, seconds)| seconds.map(|s| (way, s)));
        let fastest = seconds.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(way, _)| way);
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

/// Seconds that a way takes, the least of some runs behind a first. What a convolution adds to stays as
/// it is: a trial adds elsewhere.
fn seconds(
    driver: &dyn Driver,
    stream: Stream,
    c: &Convolution,
    way: usize,
    Way { workspace, .. }: &Way,
    [from, to]: [Event; 2],
) -> Result<f64> {
    let sums = if c.accumulates() { c.elements()[c.written()] * c.dtype.bytes() } else { 0 };
    let space = driver.allocate(sums + workspace + 2 * ALIGNMENT)?;
    // At a multiple of the same powers of two.
    let elsewhere = |address: u64| space + address % ALIGNMENT as u64;
    let trial = if c.accumulates() { c.written_to(elsewhere) } else { *c };
    let workspace = space + (sums + ALIGNMENT).next_multiple_of(ALIGNMENT) as u64;
    let run = || driver.convolution(stream, &trial, way, workspace);
    let time = || {
        driver.record(stream, from)?;
        run()?;
        driver.record(stream, to)?;
        driver.wait(to)?;
        driver.elapsed(from, to)
    };
    let least = run().and_then(|()| {
        let times: Vec<f64> = (0..TRIALS).map(|_| time()).collect::<Result<_>>()?;
        Ok(times.into_iter().fold(f64::INFINITY, f64::min))
    });
    driver.free(space)?;
    least
}
