//! Work that is asked for again and again: recorded once, then replayed where the device can.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use super::backend::Recording;
use super::handle::Device;
use crate::{Error, Result};

/// Pieces of work by kind. What a piece allocates is gone when it is over, and what it reads and
/// leaves lies at the same addresses every time. `T`: what the host learns from asking for it, which
/// is the same every time too and holds no tensor.
pub struct Replays<K, T> {
    device: Device,
    enabled: bool,
    kinds: HashMap<K, Seen<T>>,
}

enum Seen<T> {
    /// Libraries have planned, kernels are loaded, memory is there.
    Once,
    Recorded(Recording, Rc<T>),
}

impl<K: Eq + Hash, T> Replays<K, T> {
    /// With `wanted`, work is replayed where the device can; else it is asked for anew every time.
    pub fn new(device: &Device, wanted: bool) -> Replays<K, T> {
        let enabled = wanted && device.0.backend.recorder().is_some();
        device.0.replays.set(device.0.replays.get() + usize::from(enabled));
        Replays { device: device.clone(), enabled, kinds: HashMap::new() }
    }

    /// Whether work is replayed: then its memory is its own, with what lies free between its tensors.
    pub fn are_recorded(&self) -> bool {
        self.enabled
    }

    /// Does a piece of work: the first of its kind as it is asked for, the second recorded, every
    /// later one replayed without calling `work`.
    pub fn run(&mut self, kind: K, work: impl FnOnce() -> Result<T>) -> Result<Rc<T>> {
        let device = self.device.clone();
        let Some(recorder) = device.0.backend.recorder().filter(|_| self.enabled) else {
            return work().map(Rc::new);
        };
        device.transient(|| {
            if device.0.profile.borrow().is_some() {
                return work().map(Rc::new);
            }
            let held = device.0.pools.borrow().transient_used();
            if held > 0 {
                let problem = "bytes of a step's memory are still held where it is to run again";
                return Err(Error::device(format!("{held} {problem}")));
            }
            let (recording, known) = match self.kinds.get(&kind) {
                None => {
                    let known = work()?;
                    self.kinds.insert(kind, Seen::Once);
                    return Ok(Rc::new(known));
                }
                Some(Seen::Once) => {
                    recorder.begin()?;
                    let known = work();
                    // Ends in any case: what was recorded by work that failed goes.
                    let recording = recorder.end();
                    let known = Rc::new(known.inspect_err(|_| {
                        recording.iter().for_each(|recording| recorder.discard(*recording));
                    })?);
                    let recording = recording?;
                    self.kinds.insert(kind, Seen::Recorded(recording, known.clone()));
                    (recording, known)
                }
                Some(Seen::Recorded(recording, known)) => (*recording, known.clone()),
            };
            recorder.replay(recording)?;
            Ok(known)
        })
    }
}

impl<K, T> Drop for Replays<K, T> {
    fn drop(&mut self) {
        if !self.enabled {
            return;
        }
        let device = &self.device.0;
        for seen in self.kinds.values() {
            if let (Seen::Recorded(recording, _), Some(recorder)) =
                (seen, device.backend.recorder())
            {
                recorder.discard(*recording);
            }
        }
        device.replays.set(device.replays.get() - 1);
        if device.replays.get() == 0 {
            device.pools.borrow_mut().release();
        }
    }
}

impl Device {
    /// Runs `f`, of whose tensors none outlives it: where work is replayed, it gets the memory that
    /// nothing else may have between two replays.
    pub fn transient<R>(&self, f: impl FnOnce() -> R) -> R {
        self.within(self.0.replays.get() > 0, f)
    }

    /// Runs `f`, whose tensors may outlive the step that it is a part of.
    pub fn lasting<R>(&self, f: impl FnOnce() -> R) -> R {
        self.within(false, f)
    }

    fn within<R>(&self, inside: bool, f: impl FnOnce() -> R) -> R {
        let before = std::mem::replace(&mut self.0.pools.borrow_mut().inside, inside);
        let result = f();
        self.0.pools.borrow_mut().inside = before;
        result
    }
}
