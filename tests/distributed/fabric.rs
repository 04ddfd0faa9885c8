//! Processes of a group as threads that exchange through memory.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use udass_raw::device::Device;
use udass_raw::device::group::{BatchNormOver, Collectives, Place};
use udass_raw::tensor::DType;
use udass_raw::{Error, Result};

/// A wait that takes longer will not end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The place where threads meet.
struct Fabric {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Number of meetings that have ended.
    round: u64,
    /// What each has brought to the current one.
    brought: Vec<Option<(String, Vec<u8>)>>,
    /// What all brought to the last one.
    all: Arc<Vec<Vec<u8>>>,
    aborted: bool,
}

/// A thread's end of the fabric.
struct Thread {
    place: Place,
    fabric: Arc<Fabric>,
    /// Changes this process's own numbers before and after they are averaged.
    fault: Fault,
    /// Number of calls so far that average this many numbers or more.
    large: Cell<usize>,
}

/// What goes wrong in one of the processes.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// The last gradient of an iteration is not a number in process 1.
    NotFinite {
        iteration: usize,
    },
    /// A mean gradient of an iteration is another one in process 1.
    Differs {
        iteration: usize,
    },
}

/// Fewer numbers than a network has gradients, and more than a batch norm has channels.
const LARGE: usize = 100_000;

impl Thread {
    /// Brings bytes and returns those of all. `call` must be the same for all.
    fn meet(&self, call: &str, bytes: &[u8]) -> Result<Arc<Vec<Vec<u8>>>> {
        let ended = || Error::Training("another process has ended the group".into());
        let Fabric { state, changed } = &*self.fabric;
        let mut state = state.lock().unwrap();
        let round = state.round;
        state.brought[self.place.rank] = Some((call.into(), bytes.into()));
        if state.brought.iter().all(Option::is_some) {
            let brought: Vec<(String, Vec<u8>)> =
                state.brought.iter_mut().map(|b| b.take().unwrap()).collect();
            assert!(brought.iter().all(|b| b.0 == call), "processes call {brought:?}");
            state.all = Arc::new(brought.into_iter().map(|b| b.1).collect());
            state.round += 1;
            changed.notify_all();
        }
        while state.round == round && !state.aborted {
            let (held, waited) = changed.wait_timeout(state, PATIENCE).unwrap();
            state = held;
            let there: Vec<Option<&String>> =
                state.brought.iter().map(|b| b.as_ref().map(|b| &b.0)).collect();
            assert!(!waited.timed_out(), "{} waits in {call}: {there:?}", self.place.rank);
        }
        if state.round == round { Err(ended()) } else { Ok(state.all.clone()) }
    }
}

impl Collectives for Thread {
    fn place(&self) -> Place {
        self.place
    }

    fn all_reduce_mean(&self, address: u64, elements: usize, dtype: DType) -> Result<()> {
        let bytes = elements * dtype.bytes();
        // SAFETY: the numbers of a tensor on a host device, of this thread's own.
        let own = unsafe { std::slice::from_raw_parts_mut(address as *mut u8, bytes) };
        let now = (elements > LARGE).then(|| self.large.replace(self.large.get() + 1));
        let last = bytes - dtype.bytes()..;
        if now.is_some_and(|iteration| self.fault == Fault::NotFinite { iteration }) {
            own[last].fill(0xff);
        }
        let all = self.meet(&format!("all_reduce_mean of {elements} {dtype:?}"), own)?;
        macro_rules! mean {
            ($real:ty) => {
                for (i, out) in own.chunks_mut(size_of::<$real>()).enumerate() {
                    let at = i * size_of::<$real>();
                    let read = |part: &Vec<u8>| {
                        <$real>::from_ne_bytes(
                            part[at..at + size_of::<$real>()].try_into().unwrap(),
                        )
                    };
                    let sum = all.iter().map(read).reduce(|a, b| a + b).unwrap();
                    out.copy_from_slice(&(sum / all.len() as $real).to_ne_bytes());
                }
            };
        }
        match dtype {
            DType::F32 => mean!(f32),
            DType::F64 => mean!(f64),
            other => panic!("{other:?}"),
        }
        if now.is_some_and(|iteration| self.fault == Fault::Differs { iteration }) {
            let middle = elements / 2 * dtype.bytes();
            own[middle..middle + 4].copy_from_slice(&1f32.to_ne_bytes());
        }
        Ok(())
    }

    fn all_gather(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: tensors on a host device, of this thread's own.
        let (from, to) = unsafe {
            let to = std::slice::from_raw_parts_mut(to as *mut u8, bytes * self.place.size);
            (std::slice::from_raw_parts(from as *const u8, bytes), to)
        };
        let all = self.meet(&format!("all_gather of {bytes} bytes"), from)?;
        all.iter().zip(to.chunks_mut(bytes)).for_each(|(part, to)| to.copy_from_slice(part));
        Ok(())
    }

    fn abort(&self) {
        self.fabric.state.lock().unwrap().aborted = true;
        self.fabric.changed.notify_all();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // The others do not wait for a thread that has ended.
        self.abort();
    }
}

/// Runs `work` in as many processes, each with a device that `device` creates, and returns what each
/// returns.
pub fn together<R: Send>(
    processes: usize,
    batch_norm: BatchNormOver,
    device: impl Fn() -> Device + Sync,
    work: impl Fn(&Device) -> R + Sync,
) -> Vec<R> {
    together_with(Fault::None, processes, batch_norm, device, work)
}

/// Runs `work` like [`together`], with a fault.
pub fn together_with<R: Send>(
    fault: Fault,
    processes: usize,
    batch_norm: BatchNormOver,
    device: impl Fn() -> Device + Sync,
    work: impl Fn(&Device) -> R + Sync,
) -> Vec<R> {
    let fabric = Arc::new(Fabric { state: Mutex::default(), changed: Condvar::new() });
    fabric.state.lock().unwrap().brought = vec![None; processes];
    let one = &|rank: usize| {
        let device = device();
        if processes > 1 {
            let place = Place { rank, size: processes, local_rank: rank, local_size: processes };
            let fault = if rank == 1 { fault } else { Fault::None };
            let large = Cell::new(0);
            let thread = Thread { place, fabric: fabric.clone(), fault, large };
            device.join(Rc::new(thread), batch_norm).unwrap();
        }
        work(&device)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..processes).map(|rank| scope.spawn(move || one(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
