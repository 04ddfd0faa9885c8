//! Cases of operations that are recorded on a tape: the forward pass alone, and with the backward
//! pass.

use std::rc::Rc;

use serde_json::Value;
use udass_raw::device::Device;
use udass_raw::params::{Init, Layout, Param, ParamId, ParamSpec, Spec, Weights};
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};

use super::{Bed, List, Run};

/// An input of an operation.
#[derive(Clone)]
pub enum Input {
    /// In the operand type, with a gradient.
    Operand(Vec<usize>),
    /// In `real`, with a gradient: part of the residual stream, or logits.
    Real(Vec<usize>),
    /// In the operand type, without a gradient.
    Fixed(Vec<usize>),
}

/// The tensors that an operation is applied to.
pub struct Set {
    pub x: Vec<Tensor>,
    pub p: Vec<Param>,
    /// Tensors without a gradient: labels, weights, keys.
    pub more: Vec<Tensor>,
    gradients: Vec<Tensor>,
}

type Apply = Rc<dyn Fn(&Tape, &Set) -> Vec<Tensor>>;
type More = Rc<dyn Fn(&Bed, u64) -> Vec<Tensor>>;

/// An operation that is recorded on a tape.
#[derive(Clone)]
pub struct Op {
    inputs: Vec<Input>,
    params: Vec<Vec<usize>>,
    more: More,
    apply: Apply,
}

impl Op {
    pub fn new(
        inputs: Vec<Input>,
        params: Vec<Vec<usize>>,
        apply: impl Fn(&Tape, &Set) -> Vec<Tensor> + 'static,
    ) -> Op {
        Op { inputs, params, more: Rc::new(|_, _| Vec::new()), apply: Rc::new(apply) }
    }

    /// Adds inputs without a gradient; `more` generates them for a slot.
    pub fn with(self, more: impl Fn(&Bed, u64) -> Vec<Tensor> + 'static) -> Op {
        Op { more: Rc::new(more), ..self }
    }

    /// Parameters laid out as in a network, with their low-precision copies.
    fn parameters(
        &self,
        bed: &Bed,
        mut slots: impl Iterator<Item = u64>,
        learns: bool,
    ) -> Vec<Param> {
        let mut spec = Spec::default();
        let param = |shape: &Vec<usize>| spec.param("", shape, Layout::Same, Init::Constant(0.0));
        let ids: Vec<ParamId> = self.params.iter().map(param).collect();
        let mut weights = Weights::new(&bed.device, &Rc::new(spec), learns).unwrap();
        let mut next = |param: &ParamSpec| {
            let numbers = bed.numbers(&param.shape, slots.next().unwrap_or_default());
            Ok(Some(bed.read(&numbers)))
        };
        weights.load(&bed.device, &mut next).unwrap();
        ids.into_iter().map(|id| weights.param(id).unwrap()).collect()
    }

    fn set(&self, bed: &Bed, slot: u64, learns: bool, outputs: &[(Vec<usize>, DType)]) -> Set {
        let device = &bed.device;
        let slots = (0..).map(|i| 64 * slot + i);
        let x = (self.inputs.iter().zip(slots.clone()))
            .map(|(input, slot)| match input {
                Input::Operand(shape) | Input::Fixed(shape) => bed.operand(shape, slot),
                Input::Real(shape) => bed.numbers(shape, slot),
            })
            .collect();
        let p = self.parameters(bed, slots.clone().skip(16), learns);
        let gradients = (outputs.iter().zip(slots.skip(32)))
            .map(|((shape, dtype), slot)| match *dtype == device.real() {
                true => bed.numbers(shape, slot),
                false => bed.operand(shape, slot),
            })
            .collect();
        Set { x, p, more: (self.more)(bed, slot), gradients }
    }

    fn forward(&self, bed: &Bed) -> Run {
        let apply = self.apply.clone();
        bed.rotating(
            |slot| self.set(bed, slot, false, &[]),
            move |device, set| apply(&Tape::inference(device), set),
        )
    }

    fn forward_backward(&self, bed: &Bed) -> Run {
        let dry = Bed::dry(bed.precision, 0);
        let outputs = (self.apply)(&Tape::inference(&dry.device), &self.set(&dry, 0, false, &[]));
        let outputs: Vec<_> = outputs.iter().map(|y| (y.shape().to_vec(), y.dtype())).collect();
        let (apply, inputs) = (self.apply.clone(), self.inputs.clone());
        let both = move |device: &Device, set: &mut Set| {
            let tape = Tape::recording(device);
            let leaf = |(x, input): (&Tensor, &Input)| match input {
                Input::Fixed(_) => x.clone(),
                _ => tape.leaf(x),
            };
            let Set { x, p, more, gradients } = set;
            let leaves = x.iter().zip(&inputs).map(leaf).collect();
            let seen = Set { x: leaves, p: p.clone(), more: more.clone(), gradients: Vec::new() };
            let outputs = apply(&tape, &seen);
            let seeds = outputs.iter().zip(gradients.iter().cloned()).collect();
            let gradients = tape.backward(seeds).unwrap();
            (outputs, gradients)
        };
        bed.rotating(|slot| self.set(bed, slot, true, &outputs), both)
    }
}

impl List {
    /// Adds two cases: the forward pass alone, as a teacher runs it, and with the backward pass.
    pub fn op(&mut self, name: &'static str, shape: Value, op: Op) {
        self.forward(name, shape.clone(), op.clone());
        self.push(name, shape, true, Box::new(move |bed| op.forward_backward(bed)));
    }

    /// Adds an operation that never runs backward.
    pub fn forward(&mut self, name: &'static str, shape: Value, op: Op) {
        self.push(name, shape, false, Box::new(move |bed| op.forward(bed)));
    }
}
