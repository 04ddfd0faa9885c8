//! CUDA graph cache: work that recurs in every step is captured once and then replayed, on devices
//! that support it.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use super::backend::CapturedGraph;
use super::handle::Device;
use crate::{Error, Result};

/// A cache of captured graphs, one for each kind of work. Everything that the work allocates is
/// freed when it ends, and its inputs and results are at the same addresses every time. `T` is what
/// the host learns from submitting the work; it must be the same every time too, and hold no
/// tensor.
pub struct GraphCache<K, T> {
    device: Device,
    enabled: bool,
    kinds: HashMap<K, GraphState<T>>,
}

enum GraphState<T> {
    /// Warmed up: the libraries have made their plans, kernels are loaded and memory is reserved.
    WarmedUp,
    Captured(CapturedGraph, Rc<T>),
}

impl<K: Eq + Hash, T> GraphCache<K, T> {
    /// Creates a graph cache. Work is submitted anew every time if `wanted` is false or the device
    /// cannot capture graphs.
    pub fn new(device: &Device, wanted: bool) -> GraphCache<K, T> {
        let enabled = wanted && device.0.backend.graph_capture().is_some();
        device.0.graph_caches.set(device.0.graph_caches.get() + usize::from(enabled));
        GraphCache { device: device.clone(), enabled, kinds: HashMap::new() }
    }

    /// Returns whether work is captured and replayed. If so, its memory stays reserved for it,
    /// including the gaps between its tensors.
    pub fn captures(&self) -> bool {
        self.enabled
    }

    /// Runs work of some kind. The first run submits it as usual (the warm-up), the second captures
    /// and replays it, and every later one replays the graph without calling `work`. While a
    /// profile is active, the work is always submitted.
    ///
    /// # Errors
    /// Fails if the work does, or if memory of an earlier step is still in use.
    pub fn run(&mut self, kind: K, work: impl FnOnce() -> Result<T>) -> Result<Rc<T>> {
        let device = self.device.clone();
        let Some(graph_capture) = device.0.backend.graph_capture().filter(|_| self.enabled) else {
            return work().map(Rc::new);
        };
        device.graph_private(|| {
            if device.0.profile.borrow().is_some() {
                return work().map(Rc::new);
            }
            let held = device.0.pools.borrow().graph_private_used();
            if held > 0 {
                let problem =
                    "bytes of a step's memory are still allocated when its graph is to be replayed";
                return Err(Error::device(format!("{held} {problem}")));
            }
            let (graph, known) = match self.kinds.get(&kind) {
                None => {
                    let known = work()?;
                    self.kinds.insert(kind, GraphState::WarmedUp);
                    return Ok(Rc::new(known));
                }
                Some(GraphState::WarmedUp) => {
                    graph_capture.begin()?;
                    let known = work();
                    // End the capture even if the work failed, and discard its graph then.
                    let graph = graph_capture.end();
                    let known = Rc::new(known.inspect_err(|_| {
                        graph.iter().for_each(|graph| graph_capture.discard(*graph));
                    })?);
                    let graph = graph?;
                    device.0.pools.borrow_mut().graphs += 1;
                    self.kinds.insert(kind, GraphState::Captured(graph, known.clone()));
                    (graph, known)
                }
                Some(GraphState::Captured(graph, known)) => (*graph, known.clone()),
            };
            graph_capture.replay(graph)?;
            Ok(known)
        })
    }
}

impl<K, T> Drop for GraphCache<K, T> {
    fn drop(&mut self) {
        if !self.enabled {
            return;
        }
        let device = &self.device.0;
        for seen in self.kinds.values() {
            if let (GraphState::Captured(graph, _), Some(graph_capture)) =
                (seen, device.backend.graph_capture())
            {
                graph_capture.discard(*graph);
                device.pools.borrow_mut().graphs -= 1;
            }
        }
        self.device.release_graph_memory();
    }
}

impl Device {
    /// Called when one of those who need the graph-private pool is gone.
    pub(super) fn release_graph_memory(&self) {
        let device = &self.0;
        device.graph_caches.set(device.graph_caches.get() - 1);
        if device.graph_caches.get() == 0 {
            device.pools.borrow_mut().release();
        }
    }

    /// Runs `f`, which must free all tensors that it allocates. While a graph cache exists, they
    /// come from the graph-private pool, which nothing else may use between two replays.
    pub fn graph_private<R>(&self, f: impl FnOnce() -> R) -> R {
        self.within(self.0.graph_caches.get() > 0, f)
    }

    /// Runs `f`, whose tensors come from the persistent pool and may outlive the current step.
    pub fn persistent<R>(&self, f: impl FnOnce() -> R) -> R {
        self.within(false, f)
    }

    fn within<R>(&self, inside: bool, f: impl FnOnce() -> R) -> R {
        let before = std::mem::replace(&mut self.0.pools.borrow_mut().inside, inside);
        let result = f();
        self.0.pools.borrow_mut().inside = before;
        result
    }
}
