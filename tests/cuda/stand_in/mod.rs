//! A GPU simulated in host memory: a second [`Driver`]. Work is deferred and runs in stream order
//! with the host's arithmetic, so that a premature read sees data that has not arrived. Fresh and
//! freed memory is poisoned, every tensor is followed by a guard zone, and misuse is an error that
//! names the call.

mod memory;
mod settings;
mod work;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use udass_raw::device::cuda::{Algorithm, Driver, Event, Graph, Launch, Memory, Stream};
use udass_raw::device::{Arithmetic, Device, LibraryOp, Matmul, Precision, Types};
use udass_raw::{Error, Result};

use memory::{Memories, PADDING, Side, guard_of};
use work::{Call, Touch, Work};

/// Workspace bytes of every library op.
pub const WORKSPACE: usize = 100;

/// Clones share one GPU: a test keeps one and gives the other to a device.
#[derive(Clone)]
pub struct StandIn(Rc<RefCell<State>>);

struct State {
    arithmetic: Arithmetic,
    precision: Precision,
    /// Whether matmuls have a bias epilogue, as the host's do, and a bias-gradient epilogue, which
    /// the host's lack.
    adds_bias: bool,
    sums_rows: bool,
    total: usize,
    memories: Memories,
    streams: Vec<Queue>,
    /// Where each event was recorded, by index.
    events: Vec<Option<Place>>,
    graphs: Vec<Option<Vec<Call>>>,
    capture: Option<(usize, Vec<Call>)>,
    /// Tensors that existed when the capture began; a replay still needs them.
    kept: BTreeSet<u64>,
    /// Names of the kernels that ran.
    kernels: BTreeSet<&'static str>,
    /// Ticks that each candidate algorithm of a library op takes.
    algorithms: Vec<u64>,
    /// Ticks that a matmul takes longer with an epilogue.
    epilogue: u64,
    /// Candidates that fail.
    failing: BTreeSet<usize>,
    /// After a failure, everything that waits fails too, as after the fault of a kernel.
    faulty: bool,
    /// How many tensors, streams, events and blocks of memory were asked for, and how many more
    /// there may be until all fail.
    asked: u64,
    left: Option<u64>,
    /// How often each candidate ran.
    ran: BTreeMap<usize, u64>,
    /// `None`: sums are split as on the host.
    multiprocessors: Option<usize>,
    /// Folder of the autotune cache.
    folder: Option<PathBuf>,
    counts: Counts,
}

#[derive(Default)]
struct Queue {
    calls: VecDeque<Call>,
    issued: u64,
    done: u64,
    /// Ticks of all calls that were enqueued.
    ticks: u64,
    /// For each other stream, how many of its calls precede what is enqueued here next.
    after: BTreeMap<usize, u64>,
}

/// A position in a stream: the number of its calls before it, and of other streams' calls.
#[derive(Clone)]
struct Place {
    queue: usize,
    until: u64,
    ticks: u64,
    after: BTreeMap<usize, u64>,
}

/// How often the host waited for a stream or an event, a graph was replayed, and memory was
/// poisoned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub synchronized: u64,
    pub waited: u64,
    pub replayed: u64,
    pub poisoned: u64,
}

/// A device on the stand-in whose results are bit-identical to the host's.
pub fn device(types: Types) -> Device {
    let precision = if types == Types::Bf16 { Precision::Bf16 } else { Precision::F32 };
    Device::cuda_through(types, Box::new(StandIn::with_precision(precision))).unwrap()
}

/// A device on a stand-in configured like a real GPU: matmuls have a bias-gradient epilogue, and
/// sums are split for its number of multiprocessors.
pub fn device_in(precision: Precision) -> Device {
    let types = if precision == Precision::Bf16 { Types::Bf16 } else { Types::F32 };
    let gpu = StandIn::with_precision(precision).along_the_way(true, true);
    gpu.0.borrow_mut().multiprocessors = Some(132);
    Device::cuda_through(types, Box::new(gpu)).unwrap()
}

pub fn misuse<T>(call: &str, problem: impl std::fmt::Display) -> Result<T> {
    Err(Error::device(format!("{call}: {problem}")))
}

impl State {
    fn works(&self, call: &str) -> Result<()> {
        match self.faulty {
            true => misuse(call, "an illegal address was accessed before"),
            false => Ok(()),
        }
    }

    /// Counts something that takes memory, and returns whether there is any left for it.
    fn has_room(&mut self) -> bool {
        self.asked += 1;
        match &mut self.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    fn room(&mut self, call: &str) -> Result<()> {
        match self.has_room() {
            true => Ok(()),
            false => misuse(call, "out of memory"),
        }
    }

    fn queue(&self, call: &str, stream: Stream) -> Result<usize> {
        match self.streams.get(stream.0 as usize) {
            Some(_) => Ok(stream.0 as usize),
            None => misuse(call, format_args!("stream {} is not this GPU's", stream.0)),
        }
    }

    fn place(&self, call: &str, event: Event) -> Result<Place> {
        match self.events.get(event.0 as usize).cloned().flatten() {
            Some(place) => Ok(place),
            None => misuse(call, format_args!("event {} was not recorded", event.0)),
        }
    }

    /// Rejects, inside a capture, calls that block the host or that a graph cannot contain.
    fn not_in_capture(&self, call: &str) -> Result<()> {
        match self.capture {
            Some(_) => misuse(call, "inside a capture"),
            None => Ok(()),
        }
    }

    /// Enqueues a call on a stream, or adds it to the ongoing capture.
    fn give(&mut self, stream: Stream, mut call: Call) -> Result<()> {
        let queue = self.queue(&call.name, stream)?;
        for touch in &mut call.touches {
            self.memories.check(&call.name, touch)?;
            let tensor = self.memories.tensor_around(touch);
            touch.kept = tensor.is_some_and(|(start, _)| self.kept.contains(&start));
            call.guards
                .extend(tensor.filter(|_| touch.written).map(|(start, n)| guard_of(start, n)));
        }
        self.against_other_streams(queue, &call)?;
        match &mut self.capture {
            Some((captured, calls)) if *captured == queue => calls.push(call),
            _ => self.push(queue, call),
        }
        Ok(())
    }

    fn push(&mut self, queue: usize, call: Call) {
        self.streams[queue].ticks += call.ticks();
        self.streams[queue].calls.push_back(call);
        self.streams[queue].issued += 1;
    }

    /// Rejects a call that conflicts with pending work of another stream, if nothing orders the
    /// two.
    fn against_other_streams(&self, queue: usize, call: &Call) -> Result<()> {
        let others = self.streams.iter().enumerate().filter(|(other, _)| *other != queue);
        for (other, waiting) in others {
            let ordered = self.streams[queue].after.get(&other).copied().unwrap_or(0);
            let unordered =
                waiting.calls.iter().skip(ordered.saturating_sub(waiting.done) as usize);
            if let Some(earlier) = unordered.into_iter().find(|earlier| earlier.conflicts(call)) {
                let problem = format!(
                    "on stream {queue}, while `{}` on stream {other} has yet to use the memory",
                    earlier.name
                );
                return misuse(&call.name, problem);
            }
        }
        Ok(())
    }

    /// Finds a pending call in any stream with an access that `wanted` selects.
    fn waiting(&self, wanted: impl Fn(&Touch) -> bool) -> Option<&str> {
        let calls = self.streams.iter().flat_map(|queue| &queue.calls);
        let captured = self.capture.iter().flat_map(|(_, calls)| calls);
        let mut calls = calls.chain(captured);
        calls.find(|call| call.touches.iter().any(&wanted)).map(|call| &*call.name)
    }

    /// Runs the calls of a stream up to the given count.
    fn run(&mut self, queue: usize, until: u64) -> Result<()> {
        while self.streams[queue].done < until {
            let Some(call) = self.streams[queue].calls.pop_front() else { return Ok(()) };
            self.streams[queue].done += 1;
            if let Work::Launch(launch) = &call.work {
                self.kernels.insert(launch.kernel.name);
            }
            if let Work::LibraryOp { algorithm, .. } = call.work {
                *self.ran.entry(algorithm).or_default() += 1;
            }
            if let Work::Hold { queue, until } = call.work {
                self.run(queue, until)?;
            }
            call.work.perform(&self.arithmetic)?;
            for guard in &call.guards {
                memory::check_guard(&call.name, guard)?;
            }
        }
        Ok(())
    }

    /// Poisoning is enqueued like any other work, so that earlier calls on the stream still see
    /// their data.
    fn poison(&mut self, name: &str, address: u64, bytes: usize, value: u8) {
        let call = Call::new(name, Work::Fill { address, bytes, value }, vec![]);
        self.counts.poisoned += 1;
        match &mut self.capture {
            Some((_, calls)) => calls.push(call),
            None if self.streams.is_empty() => {}
            None => self.push(0, call),
        }
    }
}

impl Driver for StandIn {
    fn describe(&self) -> String {
        "stand-in for a GPU".into()
    }

    fn kept(&self) -> Option<PathBuf> {
        self.0.borrow().folder.clone()
    }

    fn memory(&self) -> Result<Memory> {
        let state = self.0.borrow();
        Ok(Memory { free: state.total - state.memories.allocated(), total: state.total })
    }

    fn multiprocessors(&self) -> Option<usize> {
        self.0.borrow().multiprocessors
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("allocate")?;
        state.works("allocate")?;
        let free = state.total - state.memories.allocated();
        if !state.has_room() || bytes > free {
            let problem = format!("{} MiB are requested, {} are free", bytes >> 20, free >> 20);
            return Err(Error::OutOfMemory(problem));
        }
        state.memories.allocate(Side::Device, bytes)
    }

    fn free(&self, address: u64) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("free")?;
        let range = state.memories.range(Side::Device, "free", address)?;
        let used = |t: &Touch| t.side == Side::Device && range.contains(&t.address);
        if let Some(call) = state.waiting(used) {
            return misuse("free", format_args!("`{call}` has yet to use the memory"));
        }
        state.memories.free(Side::Device, address)
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("allocate_host")?;
        state.room("allocate_host")?;
        state.memories.allocate(Side::Host, bytes)
    }

    fn free_host(&self, address: u64) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("free_host")?;
        let range = state.memories.range(Side::Host, "free_host", address)?;
        let used = |t: &Touch| t.side == Side::Host && range.contains(&t.address);
        if let Some(call) = state.waiting(used) {
            return misuse("free_host", format_args!("`{call}` has yet to use the memory"));
        }
        state.memories.free(Side::Host, address)
    }

    fn write_host(&self, to: u64, data: &[u8]) -> Result<()> {
        let state = self.0.borrow();
        let touch = Touch::new(Side::Host, to, data.len(), true);
        state.memories.check("write_host", &touch)?;
        if let Some(call) = state.waiting(|other| other.overlaps(&touch)) {
            return misuse("write_host", format_args!("`{call}` has yet to use the memory"));
        }
        work::write(to, data);
        Ok(())
    }

    fn read_host(&self, from: u64, data: &mut [u8]) -> Result<()> {
        let state = self.0.borrow();
        let touch = Touch::new(Side::Host, from, data.len(), false);
        state.memories.check("read_host", &touch)?;
        if let Some(call) = state.waiting(|other| other.written && other.overlaps(&touch)) {
            return misuse("read_host", format_args!("before the stream was waited for: `{call}`"));
        }
        work::read(from, data);
        Ok(())
    }

    fn stream(&self) -> Result<Stream> {
        let mut state = self.0.borrow_mut();
        state.room("stream")?;
        state.streams.push(Queue::default());
        Ok(Stream(state.streams.len() as u64 - 1))
    }

    fn side_stream(&self) -> Result<Stream> {
        self.stream()
    }

    fn copy_in(&self, stream: Stream, from_host: u64, to: u64, bytes: usize) -> Result<()> {
        let touches = vec![
            Touch::new(Side::Host, from_host, bytes, false),
            Touch::new(Side::Device, to, bytes, true),
        ];
        let work = Work::Copy { from: from_host, to, bytes };
        self.0.borrow_mut().give(stream, Call::new("copy_in", work, touches))
    }

    fn copy_out(&self, stream: Stream, from: u64, to_host: u64, bytes: usize) -> Result<()> {
        let touches = vec![
            Touch::new(Side::Device, from, bytes, false),
            Touch::new(Side::Host, to_host, bytes, true),
        ];
        let work = Work::Copy { from, to: to_host, bytes };
        self.0.borrow_mut().give(stream, Call::new("copy_out", work, touches))
    }

    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<()> {
        let touches = vec![
            Touch::new(Side::Device, from, bytes, false),
            Touch::new(Side::Device, to, bytes, true),
        ];
        if touches[0].overlaps(&touches[1]) {
            return misuse("copy", "source and destination overlap");
        }
        self.0.borrow_mut().give(stream, Call::new("copy", Work::Copy { from, to, bytes }, touches))
    }

    fn zero(&self, stream: Stream, address: u64, bytes: usize) -> Result<()> {
        let touches = vec![Touch::new(Side::Device, address, bytes, true)];
        let work = Work::Fill { address, bytes, value: 0 };
        self.0.borrow_mut().give(stream, Call::new("zero", work, touches))
    }

    fn launch(&self, stream: Stream, launch: &Launch) -> Result<()> {
        let name = format!("launch of {}", launch.kernel.name);
        if !(1..=1024).contains(&launch.grid.threads) || launch.grid.blocks < 1 {
            return misuse(&name, format_args!("{:?} is no grid", launch.grid));
        }
        let touches = work::touched_by(launch);
        let call = Call::new(&name, Work::Launch(launch.clone()), touches);
        self.0.borrow_mut().give(stream, call)
    }

    fn rounds_operands(&self) -> bool {
        self.0.borrow().precision != Precision::F32
    }

    fn algorithms(&self, op: &LibraryOp) -> Result<Vec<Algorithm>> {
        let state = self.0.borrow();
        let has = match op {
            LibraryOp::Matmul(Matmul { bias, row_sums, .. }) => {
                (bias.is_none() || state.adds_bias) && (row_sums.is_none() || state.sums_rows)
            }
            LibraryOp::Convolution(_) => true,
        };
        let algorithms = 0..if has { state.algorithms.len() } else { 0 };
        let algorithm = |i| Algorithm { name: format!("way {i}"), workspace: WORKSPACE };
        Ok(algorithms.map(algorithm).collect())
    }

    fn compute(
        &self,
        stream: Stream,
        op: &LibraryOp,
        algorithm: usize,
        workspace: u64,
    ) -> Result<()> {
        let mut state = self.0.borrow_mut();
        let (name, mut touches) = work::told_of(op);
        let Some(&ticks) = state.algorithms.get(algorithm) else {
            return misuse(name, format_args!("there is no way {algorithm}"));
        };
        if state.failing.contains(&algorithm) {
            return misuse(name, format_args!("way {algorithm} fails"));
        }
        let has_epilogue = matches!(op, LibraryOp::Matmul(product)
            if product.bias.is_some() || product.row_sums.is_some());
        let ticks = if has_epilogue { ticks + state.epilogue } else { ticks };
        touches.push(Touch::new(Side::Device, workspace, WORKSPACE, true));
        let work = Work::LibraryOp { op: *op, algorithm, ticks };
        state.give(stream, Call::new(name, work, touches))
    }

    fn event(&self) -> Result<Event> {
        let mut state = self.0.borrow_mut();
        state.room("event")?;
        state.events.push(None);
        Ok(Event(state.events.len() as u64 - 1))
    }

    fn record(&self, stream: Stream, event: Event) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("record")?;
        let queue = state.queue("record", stream)?;
        let Queue { issued, ticks, after, .. } = &state.streams[queue];
        let here = Place { queue, until: *issued, ticks: *ticks, after: after.clone() };
        match state.events.get_mut(event.0 as usize) {
            Some(place) => *place = Some(here),
            None => return misuse("record", format_args!("event {} is not there", event.0)),
        }
        Ok(())
    }

    fn hold(&self, stream: Stream, event: Event) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("hold")?;
        let queue = state.queue("hold", stream)?;
        let Place { queue: other, until, after, .. } = state.place("hold", event)?;
        for (other, until) in after.into_iter().chain([(other, until)]) {
            let known = state.streams[queue].after.entry(other).or_default();
            *known = until.max(*known);
        }
        state.push(queue, Call::new("hold", Work::Hold { queue: other, until }, vec![]));
        Ok(())
    }

    fn passed(&self, event: Event) -> Result<bool> {
        let state = self.0.borrow();
        state.not_in_capture("passed")?;
        let Place { queue, until, .. } = state.place("passed", event)?;
        Ok(state.streams[queue].done >= until)
    }

    fn wait(&self, event: Event) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("wait")?;
        let Place { queue, until, .. } = state.place("wait", event)?;
        state.counts.waited += 1;
        state.run(queue, until)
    }

    /// The clock advances with each call that is enqueued.
    fn elapsed(&self, from: Event, to: Event) -> Result<f64> {
        let state = self.0.borrow();
        let tick = |event: Event| {
            let Place { queue, until, ticks, .. } = state.place("elapsed", event)?;
            match state.streams[queue].done >= until {
                true => Ok(ticks as f64 * 1e-6),
                false => misuse("elapsed", format_args!("event {} is yet to come", event.0)),
            }
        };
        Ok(tick(to)? - tick(from)?)
    }

    fn synchronize(&self, stream: Stream) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("synchronize")?;
        state.works("synchronize")?;
        let queue = state.queue("synchronize", stream)?;
        state.counts.synchronized += 1;
        state.run(queue, u64::MAX)
    }

    fn is_captured(&self, stream: Stream) -> Result<bool> {
        let state = self.0.borrow();
        let queue = state.queue("is_captured", stream)?;
        Ok(state.capture.as_ref().is_some_and(|(captured, _)| *captured == queue))
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("begin_capture")?;
        let queue = state.queue("begin_capture", stream)?;
        state.capture = Some((queue, Vec::new()));
        state.kept = state.memories.tensors();
        Ok(())
    }

    fn end_capture(&self, stream: Stream) -> Result<Graph> {
        let mut state = self.0.borrow_mut();
        let queue = state.queue("end_capture", stream)?;
        match state.capture.take() {
            Some((captured, calls)) if captured == queue => {
                state.kept.clear();
                state.room("end_capture")?;
                state.graphs.push(Some(calls));
                Ok(Graph(state.graphs.len() as u64 - 1))
            }
            other => {
                state.capture = other;
                misuse("end_capture", format_args!("nothing is captured on stream {queue}"))
            }
        }
    }

    fn replay(&self, stream: Stream, graph: Graph) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.not_in_capture("replay")?;
        let queue = state.queue("replay", stream)?;
        let Some(calls) = state.graphs.get(graph.0 as usize).cloned().flatten() else {
            return misuse("replay", format_args!("graph {} is not there", graph.0));
        };
        for call in calls {
            // Tensors of the capture itself no longer exist: their memory must be free for the
            // replay.
            for touch in call.touches.iter().filter(|touch| touch.bytes > 0) {
                let name = format!("replay of {}", call.name);
                match touch.kept {
                    true => state.memories.check(&name, touch)?,
                    false => state.memories.check_free(&name, touch)?,
                }
            }
            state.against_other_streams(queue, &call)?;
            state.push(queue, call);
        }
        state.counts.replayed += 1;
        Ok(())
    }

    fn discard(&self, graph: Graph) {
        if let Some(calls) = self.0.borrow_mut().graphs.get_mut(graph.0 as usize) {
            *calls = None;
        }
    }

    fn padding(&self) -> usize {
        PADDING
    }

    fn on_alloc(&self, address: u64, bytes: usize) -> Result<()> {
        let mut state = self.0.borrow_mut();
        if !state.has_room() {
            return Err(Error::OutOfMemory("no tensor may be added".into()));
        }
        state.memories.on_alloc(address, bytes)?;
        state.poison("poison", address, bytes, memory::POISON);
        let guard = guard_of(address, bytes);
        let (start, length) = (guard.start, (guard.end - guard.start) as usize);
        state.poison("guard", start, length, memory::GUARD);
        Ok(())
    }

    fn on_free(&self, address: u64, bytes: usize) {
        let mut state = self.0.borrow_mut();
        state.memories.on_free(address);
        state.poison("poison", address, bytes, memory::POISON);
    }
}
