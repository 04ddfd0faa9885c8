//! Tracing: intermediate results of an iteration by name.

use crate::Result;
use crate::ops::mix::Labeled;
use crate::tensor::Tensor;

/// Receives the name of an intermediate result and the result.
type Sink<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<()>;

/// Destination of intermediate results. Tests compare them, and `udass-raw replay` looks for the
/// first one that is not finite. A traced iteration is never captured or replayed as a CUDA graph.
pub struct Trace<'a> {
    sink: Option<Sink<'a>>,
    /// Whether results are computed for the trace alone.
    complete: bool,
}

impl<'a> Trace<'a> {
    /// Disables tracing.
    pub fn off() -> Trace<'static> {
        Trace { sink: None, complete: false }
    }

    /// Calls `sink` with each result, in the order in which the results are computed.
    pub fn to(sink: Sink<'a>) -> Trace<'a> {
        Trace { sink: Some(sink), complete: true }
    }

    /// Calls `sink` like [`to`](Self::to), but with little more than what the iteration computes
    /// anyway. The memory of the results is the iteration's, so `sink` must keep none of them.
    pub fn brief(sink: Sink<'a>) -> Trace<'a> {
        Trace { sink: Some(sink), complete: false }
    }

    /// Returns whether tracing is enabled.
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Returns whether results are wanted that the iteration does not need.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        match &mut self.sink {
            Some(sink) => sink(name, tensor),
            None => Ok(()),
        }
    }

    /// Traces images, labels and weights, each under its own name after `prefix`.
    pub(super) fn labeled(&mut self, prefix: &str, images: &Labeled) -> Result<()> {
        self.tensor(&format!("{prefix}img"), &images.image)?;
        self.tensor(&format!("{prefix}label"), &images.label)?;
        match &images.weight {
            Some(weight) => self.tensor(&format!("{prefix}weight"), weight),
            None => Ok(()),
        }
    }
}
