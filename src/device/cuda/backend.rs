//! The CUDA backend: memory in the order of one stream, transfers through pinned memory, and
//! everything else delegated to a [`Driver`].

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::Path;

use super::autotune::Autotuner;
use super::blocks;
use super::copy_stream::CopyStream;
use super::driver::{Argument, Driver, Event, Graph, Launch, Stream};
use super::staging::Staging;
use crate::device::backend::{
    Backend, CapturedGraph, GraphCapture, Transfers, Way, host_parts_of_groups,
};
use crate::device::launch::{Arg, Grid, Kernel};
use crate::device::library_op::LibraryOp;
use crate::device::precision::Types;
use crate::{Error, Result};

/// Segment sizes are multiples of this many bytes.
const GRANULE: usize = 2 << 20;
/// Bytes of the first segments. Later ones are a quarter of all before: the number of segments,
/// whose ends are gaps, stays small, and so does what is reserved without need.
const FIRST_SEGMENTS: usize = 64 << 20;

pub struct Cuda {
    pub(super) driver: Box<dyn Driver>,
    /// All work is submitted to this stream, in program order. Only uploads ahead of the work that
    /// reads them use another one.
    pub(super) stream: Stream,
    staging: RefCell<Staging>,
    pub(super) copy_stream: RefCell<CopyStream>,
    /// Set during graph capture.
    graph: Cell<bool>,
    /// Freed when the device is dropped at the latest; every tensor keeps the device alive.
    segments: RefCell<Vec<u64>>,
    marks: RefCell<Marks>,
    autotune: Autotuner,
    /// Kernels that were launched before, so that their code is loaded, with their dynamic shared
    /// memory in bytes.
    loaded: RefCell<HashSet<(&'static str, usize)>>,
}

/// Timing events of a profile, reused by the next one.
#[derive(Default)]
struct Marks {
    events: Vec<Event>,
    used: usize,
}

impl Cuda {
    pub fn new(driver: Box<dyn Driver>) -> Result<Cuda> {
        let stream = driver.stream()?;
        let (staging, copy_stream, marks) = Default::default();
        let (graph, segments, loaded) = Default::default();
        let autotune = Autotuner::new(driver.kept(), &driver.describe());
        Ok(Cuda { driver, stream, staging, copy_stream, graph, segments, marks, autotune, loaded })
    }

    /// Returns an error during graph capture, also the embedding program's: a replayed graph runs
    /// without the host, so it cannot contain transfers from or to it, and waiting would break the
    /// capture.
    pub(super) fn not_recording(&self, what: &str) -> Result<()> {
        match self.graph.get() || self.is_captured_by_program()? {
            true => Err(Error::device(format!("{what} during graph capture"))),
            false => Ok(()),
        }
    }

    /// Returns whether the embedding program is capturing the stream.
    fn is_captured_by_program(&self) -> Result<bool> {
        Ok(!self.graph.get() && self.driver.is_captured(self.stream)?)
    }

    /// Returns an error while the embedding program captures the stream, for what happens once and
    /// would allocate memory or wait.
    fn prepared(&self, what: impl FnOnce() -> String) -> Result<()> {
        match self.is_captured_by_program()? {
            true => Err(Error::device(format!(
                "{} during the program's graph capture: `Device::prepare` does it before",
                what()
            ))),
            false => Ok(()),
        }
    }

    /// Returns the index of an op's algorithm, and its workspace in bytes.
    fn algorithm(&self, op: &LibraryOp) -> Result<Option<(usize, usize)>> {
        if let Some(known) = self.autotune.known(op) {
            return Ok(known);
        }
        self.prepared(|| format!("choosing an algorithm for {op}"))?;
        self.autotune.choose(&*self.driver, self.stream, op, self.graph.get())
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Errors cannot be reported here, and the end of the process frees everything.
        let _ = self.driver.synchronize(self.stream);
        self.copy_stream.borrow_mut().free(&*self.driver);
        self.staging.borrow_mut().free(&*self.driver);
        for segment in self.segments.borrow_mut().drain(..) {
            let _ = self.driver.free(segment);
        }
    }
}

impl Backend for Cuda {
    fn describe(&self) -> String {
        self.driver.describe()
    }

    fn reserve(&self, bytes: usize) -> Result<u64> {
        self.prepared(|| format!("allocating {} MiB", bytes.div_ceil(1 << 20)))?;
        let address = self.driver.allocate(bytes)?;
        self.segments.borrow_mut().push(address);
        Ok(address)
    }

    /// Freeing memory would break a capture.
    fn can_release(&self) -> bool {
        !self.graph.get() && self.is_captured_by_program().is_ok_and(|captured| !captured)
    }

    fn release(&self, address: u64) -> Result<()> {
        self.segments.borrow_mut().retain(|segment| *segment != address);
        self.driver.synchronize(self.stream)?;
        self.driver.free(address)
    }

    fn segment(&self, reserved: usize) -> usize {
        if self.separates_tensors() {
            return 0;
        }
        let free = self.driver.memory().map_or(0, |memory| memory.free);
        (reserved / 4).max(FIRST_SEGMENTS).min(free / 4 * 3) / GRANULE * GRANULE
    }

    fn total_memory(&self) -> Result<Option<usize>> {
        self.driver.memory().map(|memory| Some(memory.total))
    }

    /// Set by `UDASS_SEPARATE_TENSORS`.
    fn separates_tensors(&self) -> bool {
        std::env::var_os("UDASS_SEPARATE_TENSORS").is_some()
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.driver.zero(self.stream, address, bytes)
    }

    fn copy_in(&self, address: u64, data: &[u8]) -> Result<()> {
        self.not_recording("an upload")?;
        self.staging.borrow_mut().copy_in(&*self.driver, self.stream, address, data)
    }

    fn copy_out(&self, address: u64, data: &mut [u8]) -> Result<()> {
        self.not_recording("a read")?;
        self.staging.borrow_mut().copy_out(&*self.driver, self.stream, address, data)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if from == to || bytes == 0 {
            return Ok(());
        }
        self.driver.copy(self.stream, from, to, bytes)
    }

    fn launch(
        &self,
        kernel: &'static Kernel,
        types: Types,
        grid: Grid,
        args: &[Arg],
    ) -> Result<()> {
        let first = !self.loaded.borrow().contains(&(kernel.name, grid.shared));
        if first {
            self.prepared(|| format!("loading {}", kernel.name))?;
        }
        let argument = |arg: &Arg| {
            let (bytes, written) = match arg {
                Arg::Pointer { tensor: Some(tensor), written, .. } => {
                    (Some(tensor.bytes()), *written)
                }
                _ => (None, false),
            };
            Argument { word: arg.word(types), bytes, written }
        };
        let arguments = args.iter().map(argument).collect();
        self.driver.launch(self.stream, &Launch { kernel, types, grid, arguments })?;
        if first {
            self.loaded.borrow_mut().insert((kernel.name, grid.shared));
        }
        Ok(())
    }

    fn rounds_operands(&self) -> bool {
        self.driver.rounds_operands()
    }

    fn workspace(&self, op: &LibraryOp) -> Result<Option<usize>> {
        Ok(self.algorithm(op)?.map(|(_, workspace)| workspace))
    }

    fn compute(&self, op: &LibraryOp, workspace: u64) -> Result<()> {
        let (algorithm, _) = self.algorithm(op)?.ok_or_else(|| op.refused())?;
        self.driver.compute(self.stream, op, algorithm, workspace)
    }

    fn fastest(&self, op: &LibraryOp, ways: &[Way]) -> Result<usize> {
        if let Some(known) = self.autotune.known_way(op) {
            return Ok(known);
        }
        self.prepared(|| format!("timing {op}"))?;
        self.autotune.fastest(&*self.driver, self.stream, op, ways, self.graph.get())
    }

    fn compile_kernel(
        &self,
        kernel: &'static Kernel,
        _: Types,
        file: &Path,
        text: String,
    ) -> Result<&'static Kernel> {
        Ok(Box::leak(Box::new(Kernel {
            name: kernel.name,
            file: Box::leak(file.display().to_string().into_boxed_str()),
            line: 1,
            parameters: kernel.parameters,
            serial: kernel.serial,
            source: Some(Box::leak(text.into_boxed_str())),
        })))
    }

    fn last_cache(&self) -> Option<usize> {
        self.driver.last_cache()
    }

    fn synchronize(&self) -> Result<()> {
        self.not_recording("a wait")?;
        self.driver.synchronize(self.stream)
    }

    fn mark(&self) -> Result<u64> {
        self.not_recording("a profile")?;
        let mut marks = self.marks.borrow_mut();
        let index = marks.used;
        if index == marks.events.len() {
            marks.events.push(self.driver.event()?);
        }
        marks.used += 1;
        self.driver.record(self.stream, marks.events[index])?;
        Ok(index as u64)
    }

    fn seconds(&self, mark: u64) -> Result<f64> {
        let marks = self.marks.borrow();
        self.driver.elapsed(marks.events[0], marks.events[mark as usize])
    }

    fn forget_marks(&self) {
        self.marks.borrow_mut().used = 0;
    }

    fn blocks_for(&self, n: usize) -> usize {
        blocks::of_elements(n)
    }

    fn blocks_of_groups(&self, rows: usize, width: usize) -> usize {
        match self.driver.multiprocessors() {
            Some(n) => blocks::of_groups(rows, n),
            None => self.blocks_of_rows(rows, width),
        }
    }

    fn parts_of_groups(&self, rows: usize) -> usize {
        match self.driver.multiprocessors() {
            Some(n) => blocks::parts_of_groups(rows, n),
            None => host_parts_of_groups(rows),
        }
    }

    fn graph_capture(&self) -> Option<&dyn GraphCapture> {
        self.driver.records().then_some(self as &dyn GraphCapture)
    }

    fn transfers(&self) -> Option<&dyn Transfers> {
        Some(self)
    }

    fn padding(&self) -> usize {
        self.driver.padding()
    }

    fn on_alloc(&self, address: u64, bytes: usize) -> Result<()> {
        self.driver.on_alloc(address, bytes)
    }

    fn on_free(&self, address: u64, bytes: usize) {
        self.driver.on_free(address, bytes);
    }
}

impl GraphCapture for Cuda {
    fn begin(&self) -> Result<()> {
        self.not_recording("another capture")?;
        self.driver.begin_capture(self.stream)?;
        self.graph.set(true);
        Ok(())
    }

    fn end(&self) -> Result<CapturedGraph> {
        self.graph.set(false);
        self.driver.end_capture(self.stream).map(|graph| CapturedGraph(graph.0))
    }

    fn replay(&self, graph: CapturedGraph) -> Result<()> {
        self.driver.replay(self.stream, Graph(graph.0))
    }

    fn discard(&self, graph: CapturedGraph) {
        self.driver.discard(Graph(graph.0));
    }
}
