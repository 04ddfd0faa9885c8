//! Runs the threads of a block as coroutines of one OS thread, in a random order between barriers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, c_void};
use std::ops::Range;

use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::error::Error;
use crate::memory::{Memory, Now, Region, WARP};
use crate::report::{Access, Problem, Violation, lines_of};

/// Stack size of a thread; a kernel's frame takes a few hundred bytes.
const STACK: usize = 64 << 10;
/// Number of accesses after which a block is assumed not to terminate.
const PATIENCE: u64 = 1 << 28;
/// Alignment of dynamic shared memory.
const ALIGNMENT: usize = 64;
/// Initial bytes of shared memory: a NaN in every type.
const POISON: u8 = 0xFF;

/// Why a thread is suspended.
#[derive(Clone, Copy)]
pub enum Pause {
    Barrier { from: u64 },
    Exchange { from: u64 },
    Failed,
}

/// The entry point of a kernel, called once for each thread of a block.
pub type ThreadBody = unsafe extern "C" fn(args: *mut *mut c_void);

type Thread = Coroutine<(), Pause, (), DefaultStack>;

#[derive(Clone, Copy)]
enum State {
    Ready,
    Paused(Pause),
    Done,
}

thread_local! {
    /// Stacks are reused by later blocks.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
    /// The block that kernel hooks called on this OS thread belong to.
    static RUNNING: Cell<*mut Block> = const { Cell::new(std::ptr::null_mut()) };
}

/// Makes `block` the running one during `work`.
fn during<R>(block: *mut Block, work: impl FnOnce() -> R) -> R {
    RUNNING.set(block);
    let result = work();
    RUNNING.set(std::ptr::null_mut());
    result
}

/// Returns the running block. Only the hooks of its kernel call this, one at a time, and they drop
/// the reference before they return or pause.
pub fn running<'a>() -> &'a mut Block {
    // SAFETY: hooks run only inside `during`, which set the pointer to a live block, and whose
    // caller does not touch the block until the coroutine that called the hook is suspended.
    unsafe { &mut *RUNNING.get() }
}

fn stack() -> Result<DefaultStack, Error> {
    match STACKS.with_borrow_mut(Vec::pop) {
        Some(stack) => Ok(stack),
        None => DefaultStack::new(STACK).map_err(|e| Error::Stack(e.to_string())),
    }
}

/// An array in shared memory with guard bytes on both sides, so that an out-of-bounds access does
/// not damage other memory.
#[derive(Default)]
struct Array {
    _storage: Vec<u8>,
    start: u64,
}

struct Copy {
    to: u64,
    from: u64,
    bytes: usize,
}

/// Asynchronous copies of a thread: those not yet committed, and groups not yet waited for.
#[derive(Default)]
struct Copies {
    open: Vec<Copy>,
    groups: VecDeque<Vec<Copy>>,
}

/// The parameters of a launch that a block needs.
pub struct Setting<'a> {
    pub kernel: &'a str,
    pub body: ThreadBody,
    pub arguments: &'a mut [*mut c_void],
    pub blocks: i64,
    pub threads: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// Address range of the kernels' library, whose constants may be read.
    pub program: Range<u64>,
}

/// The state of a block that is being run.
pub struct Block {
    kernel: String,
    memory: Memory,
    index: i64,
    blocks: i64,
    threads: usize,
    thread: usize,
    tick: u32,
    barrier: u32,
    exchanges: Vec<u32>,
    stack: Range<u64>,
    program: Range<u64>,
    yielder: *const Yielder<(), Pause>,
    /// Shared arrays by the address that identifies their declaration, and dynamic shared memory.
    arrays: Vec<(usize, Array)>,
    dynamic: Array,
    deposits: Vec<Vec<u8>>,
    /// For each warp, the values that its lanes deposited before the last exchange.
    exchanged: Vec<Vec<u8>>,
    copies: Vec<Copies>,
    accesses: u64,
    violation: Option<Violation>,
}

impl Block {
    pub fn new(memory: Memory) -> Block {
        Block {
            kernel: String::new(),
            memory,
            index: 0,
            blocks: 0,
            threads: 0,
            thread: 0,
            tick: 0,
            barrier: 0,
            exchanges: Vec::new(),
            stack: 0..0,
            program: 0..0,
            yielder: std::ptr::null(),
            arrays: Vec::new(),
            dynamic: Array::default(),
            deposits: Vec::new(),
            exchanged: Vec::new(),
            copies: Vec::new(),
            accesses: 0,
            violation: None,
        }
    }

    /// Runs one block; `shuffle` chooses the order of the threads between two barriers.
    ///
    /// # Errors
    /// Returns an error at the first violation, or if a stack cannot be allocated.
    pub fn run(
        &mut self,
        setting: &mut Setting,
        index: i64,
        mut shuffle: impl FnMut(&mut [usize]),
    ) -> Result<(), Error> {
        self.begin(setting, index);
        let arguments = setting.arguments.as_mut_ptr();
        let (body, threads) = (setting.body, setting.threads);
        let mut coroutines = Vec::with_capacity(threads);
        let mut ranges = Vec::with_capacity(threads);
        for _ in 0..threads {
            let stack = stack()?;
            ranges.push(stack.limit().get() as u64..stack.base().get() as u64);
            coroutines.push(Thread::with_stack(stack, move |yielder, ()| {
                running().yielder = yielder;
                // SAFETY: `arguments` are those of this kernel, and hooks check its accesses.
                unsafe { body(arguments) };
            }));
        }
        let mut states = vec![State::Ready; threads];
        let mut yielders = vec![std::ptr::null(); threads];
        let mut order: Vec<usize> = (0..threads).collect();
        while self.violation.is_none() {
            shuffle(&mut order);
            for &thread in &order {
                if !matches!(states[thread], State::Ready) {
                    continue;
                }
                self.thread = thread;
                self.stack = ranges[thread].clone();
                self.yielder = yielders[thread];
                let result = during(self, || coroutines[thread].resume(()));
                yielders[thread] = self.yielder;
                states[thread] = match result {
                    CoroutineResult::Yield(pause) => State::Paused(pause),
                    CoroutineResult::Return(()) => State::Done,
                };
                if self.violation.is_some() {
                    break;
                }
            }
            if self.violation.is_none() && self.release(&mut states) {
                break;
            }
        }
        for mut coroutine in coroutines {
            if !coroutine.done() {
                // SAFETY: the abandoned frames are those of the kernel, which own nothing, and of a
                // hook, which holds nothing while it is paused.
                unsafe { coroutine.force_reset() };
            }
            STACKS.with_borrow_mut(|stacks| stacks.push(coroutine.into_stack()));
        }
        self.memory.end_block();
        match self.violation.take() {
            Some(violation) => Err(Error::Violation(Box::new(violation))),
            None => Ok(()),
        }
    }

    fn begin(&mut self, setting: &Setting, index: i64) {
        self.kernel = setting.kernel.into();
        (self.index, self.blocks, self.threads) = (index, setting.blocks, setting.threads);
        self.program = setting.program.clone();
        self.tick += 1;
        self.barrier = self.tick;
        self.exchanges = vec![self.tick; self.threads.div_ceil(WARP)];
        self.arrays.clear();
        self.copies = (0..self.threads).map(|_| Copies::default()).collect();
        self.deposits = vec![Vec::new(); self.threads];
        self.exchanged = vec![Vec::new(); self.threads.div_ceil(WARP)];
        self.accesses = 0;
        self.dynamic = self.array("shared_memory()", setting.shared, 4, 0);
    }

    /// Resumes the threads that need not wait any longer; returns true once all threads are done.
    fn release(&mut self, states: &mut [State]) -> bool {
        let done = states.iter().filter(|s| matches!(s, State::Done)).count();
        if done == states.len() {
            return true;
        }
        let mut moved = false;
        for warp in 0..self.exchanges.len() {
            let lanes = warp * WARP..states.len().min((warp + 1) * WARP);
            let exchanging = |s: &State| matches!(s, State::Paused(Pause::Exchange { .. }));
            if states[lanes.clone()].iter().all(exchanging) {
                self.tick += 1;
                self.exchanges[warp] = self.tick;
                self.exchanged[warp] = self.deposits[lanes.clone()].concat();
                states[lanes].fill(State::Ready);
                moved = true;
            }
        }
        if moved {
            return false;
        }
        let place = |state: &State| match state {
            State::Paused(Pause::Barrier { from }) => Some(*from),
            _ => None,
        };
        let waiting = states.iter().filter(|s| place(s).is_some()).count();
        let Some(first) = states.iter().position(|s| place(s).is_some()) else {
            self.unfinished_exchange(states);
            return false;
        };
        let from = place(&states[first]).unwrap_or_default();
        let stranger = states.iter().position(|state| place(state) != Some(from));
        match stranger.filter(|&other| !self.same_barrier(from, place(&states[other]))) {
            None => {
                self.tick += 1;
                self.barrier = self.tick;
                self.exchanges.fill(self.tick);
                states.fill(State::Ready);
            }
            Some(other) => {
                let elsewhere = match states[other] {
                    State::Done => format!("thread {other} has exited"),
                    State::Paused(Pause::Barrier { from }) => {
                        format!("thread {other} waits at {}", lines_of(from).join(", "))
                    }
                    _ => format!("thread {other} waits in an exchange"),
                };
                self.thread = first;
                let threads = self.threads;
                self.fail(Problem::Divergence { waiting, threads, elsewhere }, from);
            }
        }
        false
    }

    /// Returns whether two calls are the same barrier in the source; inlining may have duplicated
    /// it.
    fn same_barrier(&self, one: u64, other: Option<u64>) -> bool {
        other.is_some_and(|other| one == other || lines_of(one) == lines_of(other))
    }

    fn unfinished_exchange(&mut self, states: &[State]) {
        let exchanging = |s: &State| match s {
            State::Paused(Pause::Exchange { from }) => Some(*from),
            _ => None,
        };
        let Some(thread) = states.iter().position(|s| exchanging(s).is_some()) else { return };
        let warp = thread / WARP;
        let lanes = &states[warp * WARP..states.len().min((warp + 1) * WARP)];
        let waiting = lanes.iter().filter(|s| exchanging(s).is_some()).count();
        let problem = Problem::Exchange { warp, waiting, lanes: lanes.len() };
        self.thread = thread;
        self.fail(problem, exchanging(&states[thread]).unwrap_or_default());
    }

    /// Suspends the running thread until it is scheduled again.
    pub fn pause(pause: Pause) {
        let yielder = running().yielder;
        // SAFETY: `run` set it to the yielder of the coroutine that is running, which called this.
        unsafe { (*yielder).suspend(pause) };
    }

    /// Records a violation of the running thread, unless there is one already.
    pub fn fail(&mut self, problem: Problem, from: u64) {
        if self.violation.is_none() {
            self.violation = Some(Violation {
                kernel: self.kernel.clone(),
                problem,
                block: self.index,
                thread: self.thread,
                lines: lines_of(from),
            });
        }
    }

    fn now(&self) -> Now {
        Now {
            tick: self.tick,
            thread: self.thread,
            block: self.index,
            barrier: self.barrier,
            exchange: self.exchanges[self.thread / WARP],
        }
    }

    /// Checks and records an access of the running thread.
    pub fn access(&mut self, address: u64, bytes: usize, access: Access) -> Result<(), Problem> {
        if self.stack.contains(&address) {
            return Ok(());
        }
        self.accesses += 1;
        if self.accesses > PATIENCE {
            return Err(Problem::Endless);
        }
        if access == Access::Read && self.program.contains(&address) {
            return Ok(());
        }
        let now = self.now();
        self.memory.access(address, bytes, access, now)
    }

    /// Returns the thread index, thread count, block index or block count for `which` = 0 to 3.
    pub fn number(&self, which: i32) -> i64 {
        match which {
            0 => self.thread as i64,
            1 => self.threads as i64,
            2 => self.index,
            _ => self.blocks,
        }
    }

    /// Allocates poisoned shared memory, `offset` bytes past a multiple of [`ALIGNMENT`].
    fn array(&mut self, name: &str, bytes: usize, element: usize, offset: usize) -> Array {
        let storage = vec![POISON; bytes + offset + 3 * ALIGNMENT];
        let start = storage.as_ptr() as usize + ALIGNMENT;
        let start = (start.next_multiple_of(ALIGNMENT) + offset) as u64;
        if bytes > 0 {
            let range = start..start + bytes as u64;
            self.memory.add(Region::new(name.into(), range, element, true, true));
        }
        Array { _storage: storage, start }
    }

    /// Returns the shared array declared at `place`, which is allocated on first use.
    pub fn shared(
        &mut self,
        place: usize,
        name: &CStr,
        bytes: usize,
        element: usize,
    ) -> *mut c_void {
        let known = self.arrays.iter().find(|(p, _)| *p == place).map(|(_, array)| array.start);
        let start = known.unwrap_or_else(|| {
            // Aligned only as strictly as its elements, as on the GPU.
            let array = self.array(&name.to_string_lossy(), bytes, element, element);
            let start = array.start;
            self.arrays.push((place, array));
            start
        });
        start as *mut c_void
    }

    pub fn dynamic_shared(&mut self) -> *mut c_void {
        self.dynamic.start as *mut c_void
    }

    pub fn deposit(&mut self, mine: &[u8]) {
        self.deposits[self.thread] = mine.to_vec();
    }

    pub fn deposits(&self) -> *const c_void {
        self.exchanged[self.thread / WARP].as_ptr().cast()
    }

    pub fn copy_async(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), Problem> {
        for address in [to, from] {
            if !address.is_multiple_of(bytes as u64) {
                return Err(Problem::Misaligned { address, bytes });
            }
        }
        self.access(from, bytes, Access::Read)?;
        self.access(to, bytes, Access::Write)?;
        self.memory.in_flight(to, bytes, true);
        self.copies[self.thread].open.push(Copy { to, from, bytes });
        Ok(())
    }

    pub fn commit_async(&mut self) {
        let copies = &mut self.copies[self.thread];
        copies.groups.push_back(std::mem::take(&mut copies.open));
    }

    /// Completes all but the last `pending` groups of the thread.
    pub fn wait_async(&mut self, pending: usize) {
        while self.copies[self.thread].groups.len() > pending {
            for copy in self.copies[self.thread].groups.pop_front().unwrap_or_default() {
                self.memory.in_flight(copy.to, copy.bytes, false);
                let now = self.now();
                // The data arrives as a write of this thread at this time; both ends were checked.
                let _ = self.memory.access(copy.to, copy.bytes, Access::Write, now);
                // SAFETY: `copy_async` checked that both ranges are in live regions; they do not
                // overlap, because the kernel copies from global to shared memory.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        copy.from as *const u8,
                        copy.to as *mut u8,
                        copy.bytes,
                    )
                };
            }
        }
    }
}
