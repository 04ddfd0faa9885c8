//! Reverse-mode automatic differentiation: a list of backward closures that run last to first.
//!
//! An op computes its output and, on a recording tape, pushes a closure that turns the gradient of
//! the output into the gradients of its inputs. Tensors captured by a closure are freed once it has
//! run.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::device::Device;
use crate::ops::accumulate;
use crate::tensor::{GradId, Tensor};
use crate::{Error, Result};

type Backward = Box<dyn FnOnce(&mut Gradients) -> Result<()>>;

/// Records the backward closures of ops.
pub struct Tape {
    device: Device,
    /// `None` on an inference tape.
    nodes: Option<RefCell<Vec<Backward>>>,
    next: Cell<u32>,
}

impl Tape {
    /// Creates a tape that keeps what the backward pass needs.
    pub fn recording(device: &Device) -> Tape {
        Tape { device: device.clone(), nodes: Some(RefCell::default()), next: Cell::new(0) }
    }

    /// Creates an inference tape, on which ops record nothing.
    pub fn inference(device: &Device) -> Tape {
        Tape { device: device.clone(), nodes: None, next: Cell::new(0) }
    }

    /// Returns the device that the tape records for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns whether ops are recorded.
    pub fn is_recording(&self) -> bool {
        self.nodes.is_some()
    }

    /// Returns the same tensor under a new gradient id, so that this tape collects its gradient.
    pub fn leaf(&self, tensor: &Tensor) -> Tensor {
        let id = self.next.get();
        self.next.set(id + 1);
        let (shape, dtype) = (tensor.shape().to_vec(), tensor.dtype());
        let mut leaf = tensor.clone();
        leaf.slot = Some(GradId { id, shape, dtype });
        leaf
    }

    /// Records how the gradient of `y` becomes the gradients of its inputs. An inference tape
    /// records nothing. `backward` is not called when no gradient reaches `y`.
    pub fn record(
        &self,
        y: Tensor,
        backward: impl FnOnce(&mut Gradients, Tensor) -> Result<()> + 'static,
    ) -> Tensor {
        let Some(nodes) = &self.nodes else { return y };
        let y = self.leaf(&y);
        let (slot, layer) = (y.slot.clone(), self.device.current_layer());
        nodes.borrow_mut().push(Box::new(move |gradients| match gradients.take(&slot) {
            Some(dy) => {
                let device = gradients.device.clone();
                device.backward_of(&layer, || backward(gradients, dy))
            }
            None => Ok(()),
        }));
        y
    }

    /// Records an op with several outputs, like [`record`](Self::record). `backward` is called only
    /// if at least one output received a gradient.
    pub fn record_all<O: AsRef<[Tensor]> + AsMut<[Tensor]>>(
        &self,
        mut outputs: O,
        backward: impl FnOnce(&mut Gradients, Vec<Option<Tensor>>) -> Result<()> + 'static,
    ) -> O {
        let Some(nodes) = &self.nodes else { return outputs };
        outputs.as_mut().iter_mut().for_each(|y| *y = self.leaf(y));
        let slots: Vec<_> = outputs.as_ref().iter().map(|y| y.slot.clone()).collect();
        let layer = self.device.current_layer();
        nodes.borrow_mut().push(Box::new(move |gradients| {
            let arrived: Vec<_> = slots.iter().map(|slot| gradients.take(slot)).collect();
            if arrived.iter().all(Option::is_none) {
                return Ok(());
            }
            let device = gradients.device.clone();
            device.backward_of(&layer, || backward(gradients, arrived))
        }));
        outputs
    }

    /// Runs `f` with activation checkpointing: only its inputs are kept. When gradients arrive, the
    /// backward pass runs `f` again, now with `true`, to rebuild the intermediate results. The
    /// second run must compute the same values.
    pub fn checkpointed<const N: usize, const M: usize>(
        &self,
        inputs: [&Tensor; N],
        f: impl Fn(&Tape, [Tensor; N], bool) -> Result<[Tensor; M]> + 'static,
    ) -> Result<[Tensor; M]> {
        let inputs = inputs.map(Tensor::clone);
        let Some(nodes) = &self.nodes else { return f(self, inputs, false) };
        let detached = inputs.each_ref().map(Tensor::detach);
        let outputs = f(&Tape::inference(&self.device), detached, false)?.map(|y| self.leaf(&y));
        let slots = outputs.each_ref().map(|y| y.slot.clone());
        nodes.borrow_mut().push(Box::new(move |gradients| {
            let arrived = slots.map(|slot| gradients.take(&slot));
            if arrived.iter().all(Option::is_none) {
                return Ok(());
            }
            let tape = Tape::recording(&gradients.device);
            let leaves = inputs.each_ref().map(|x| match x.slot {
                Some(_) => tape.leaf(x),
                None => x.clone(),
            });
            let again = f(&tape, leaves.clone(), true)?;
            let mut seeds: Vec<_> =
                again.iter().zip(arrived).filter_map(|(y, dy)| Some((y, dy?))).collect();
            // Gradients that the inputs already hold are added first, as they would be without
            // checkpointing.
            let held = leaves.iter().zip(&inputs);
            seeds.extend(held.filter_map(|(leaf, x)| Some((leaf, gradients.take(&x.slot)?))));
            let mut inner = tape.run_back(seeds)?;
            for (leaf, x) in leaves.iter().zip(&inputs) {
                if let Some(dx) = inner.of(leaf) {
                    gradients.give(&x.slot, dx)?;
                }
            }
            Ok(())
        }));
        Ok(outputs)
    }

    /// Runs the recorded closures last to first, starting from the gradients of some outputs.
    /// Parameter gradients accumulate in the parameter store; gradients of leaves are returned.
    pub fn backward(self, outputs: Vec<(&Tensor, Tensor)>) -> Result<Gradients> {
        self.device.clone().backward_range(|| self.run_back(outputs))
    }

    fn run_back(self, outputs: Vec<(&Tensor, Tensor)>) -> Result<Gradients> {
        let mut gradients = Gradients { device: self.device, held: HashMap::new() };
        for (output, gradient) in outputs {
            gradients.give(&output.slot, gradient)?;
        }
        let mut nodes = self.nodes.map(RefCell::into_inner).unwrap_or_default();
        while let Some(node) = nodes.pop() {
            node(&mut gradients)?;
        }
        Ok(gradients)
    }
}

/// Gradients collected during a backward pass, by gradient id.
pub struct Gradients {
    device: Device,
    held: HashMap<u32, Tensor>,
}

impl Gradients {
    /// Returns the device that holds the gradients.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Removes and returns the gradient collected so far, if any.
    pub fn take(&mut self, slot: &Option<GradId>) -> Option<Tensor> {
        self.held.remove(&slot.as_ref()?.id)
    }

    /// Removes and returns the gradient of a leaf after the backward pass.
    pub fn of(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.take(&leaf.slot)
    }

    /// Lets `write` fill the gradient of an input. The flag is `false` for the first writer, which
    /// overwrites, and `true` for later ones, which add. `write` is not called if the input needs
    /// no gradient.
    pub fn write(
        &mut self,
        slot: &Option<GradId>,
        write: impl FnOnce(&mut Tensor, bool) -> Result<()>,
    ) -> Result<()> {
        let Some(slot) = slot else { return Ok(()) };
        let (mut gradient, accumulate) = match self.held.remove(&slot.id) {
            Some(held) if held.is_unique() => (held, true),
            Some(shared) => {
                let mut copy = self.device.empty_like(&shared)?;
                self.device.copy(&shared, &mut copy)?;
                (copy, true)
            }
            None => (self.device.alloc(&slot.shape, slot.dtype)?, false),
        };
        write(&mut gradient, accumulate)?;
        self.held.insert(slot.id, gradient);
        Ok(())
    }

    /// Stores a finished gradient of an input, or adds it to the gradient collected so far.
    ///
    /// # Errors
    /// Returns a shape error if the size or element type does not match the input.
    pub fn give(&mut self, slot: &Option<GradId>, gradient: Tensor) -> Result<()> {
        let Some(wanted) = slot else { return Ok(()) };
        let fits = gradient.len() == wanted.shape.iter().product::<usize>();
        if !fits || gradient.dtype() != wanted.dtype {
            let problem = format!("{gradient:?} for {:?}{:?}", wanted.dtype, wanted.shape);
            return Err(Error::shape("gradient", problem));
        }
        if let Entry::Vacant(first) = self.held.entry(wanted.id) {
            first.insert(gradient.reshape(&wanted.shape)?.detach());
            return Ok(());
        }
        let device = self.device.clone();
        self.write(slot, |sum, _| accumulate(&device, &gradient, sum))
    }
}
