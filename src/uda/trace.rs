//! Tracing: intermediate results of an iteration, handed out by name.

use crate::Result;
use crate::ops::mix::Labelled;
use crate::tensor::Tensor;

/// Receives an intermediate result and its name.
type Sink<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<()>;

/// Where intermediate results go. Tests compare them, and `udass-raw replay` looks for the first one
/// that is not finite. A traced iteration is never captured or replayed as a CUDA graph.
pub struct Trace<'a>(Option<Sink<'a>>);

impl<'a> Trace<'a> {
    /// Nothing is traced.
    pub fn off() -> Trace<'static> {
        Trace(None)
    }

    /// `sink` is called with each result, in the order in which they are computed.
    pub fn to(sink: Sink<'a>) -> Trace<'a> {
        Trace(Some(sink))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        match &mut self.0 {
            Some(sink) => sink(name, tensor),
            None => Ok(()),
        }
    }

    /// Images, labels and weights, each under its own name after `prefix`.
    pub(super) fn labelled(&mut self, prefix: &str, images: &Labelled) -> Result<()> {
        self.tensor(&format!("{prefix}img"), &images.image)?;
        self.tensor(&format!("{prefix}label"), &images.label)?;
        match &images.weight {
            Some(weight) => self.tensor(&format!("{prefix}weight"), weight),
            None => Ok(()),
        }
    }
}
