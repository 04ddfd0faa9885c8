//! Kernels in the form that the machine executes.

use std::sync::Arc;

use crate::class::Class;
use crate::op::{FloatOp, Op, Slot};

/// An instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    pub op: Op,
    /// The predicate that it depends on, and whether it is negated.
    pub guard: Option<(Slot, bool)>,
    /// None for a generic access, whose class depends on the address.
    pub class: Option<Class>,
    /// Line of the PTX text.
    pub line: u32,
    /// Index into [`Program::places`].
    pub place: Option<u32>,
}

/// A source line, and the place that its function was inlined at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `file:line`.
    pub line: String,
    pub inlined_at: Option<u32>,
}

/// An array in shared memory.
#[derive(Clone, Debug)]
pub struct SharedArray {
    pub name: String,
    pub start: u32,
    /// None for the launch's dynamic shared memory.
    pub bytes: Option<u32>,
}

/// Slots that the machine fills before a thread starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Thread,
    Threads,
    Block,
    Blocks,
    Lane,
    Warp,
    /// 0, for a second or third dimension's index.
    Zero,
    /// 1, for a second or third dimension's size.
    One,
}

/// A decoded kernel.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name, with the suffix of its types.
    pub name: Arc<str>,
    /// Offset and size of each parameter.
    pub parameters: Vec<(u32, u32)>,
    pub(crate) code: Vec<Instruction>,
    pub(crate) words: u32,
    pub(crate) longs: u32,
    pub(crate) predicates: u32,
    pub(crate) specials: Vec<(Special, Slot)>,
    pub(crate) shared: Vec<SharedArray>,
    /// Bytes of local memory.
    pub(crate) local: u32,
    /// The smallest access of shared memory, in bytes; races are looked for in such words.
    pub(crate) granule: u32,
    pub(crate) places: Vec<Place>,
}

impl Program {
    /// Returns the number of instructions.
    pub fn instructions(&self) -> usize {
        self.code.len()
    }

    /// Returns how many of its instructions are of a class; those whose class depends on an address
    /// are of none.
    pub fn of(&self, class: Class) -> usize {
        self.code.iter().filter(|instruction| instruction.class == Some(class)).count()
    }

    /// Returns the bytes of the shared arrays that it declares, without the launch's dynamic part.
    pub fn static_shared(&self) -> u32 {
        self.shared.iter().filter_map(|array| array.bytes).sum()
    }

    /// Returns whether it uses the special function unit, whose results are approximate.
    pub fn approximates(&self) -> bool {
        self.uses(|op| match op {
            Op::Float { op, .. } => op.is_approximate(),
            _ => false,
        })
    }

    /// Returns whether it uses tensor cores, whose order of additions is unspecified.
    pub fn uses_tensor_cores(&self) -> bool {
        self.uses(|op| matches!(op, Op::Multiply { .. }))
    }

    /// Returns whether it fuses a multiplication with an addition.
    pub fn fuses(&self) -> bool {
        self.uses(|op| matches!(op, Op::Float { op: FloatOp::Fma, .. }))
    }

    fn uses(&self, what: impl Fn(&Op) -> bool) -> bool {
        self.code.iter().any(|instruction| what(&instruction.op))
    }

    /// Returns the source lines of an instruction, the innermost of inlined functions first.
    pub(crate) fn lines_of(&self, instruction: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = self.code.get(instruction).and_then(|i| i.place);
        while let Some(place) = next.and_then(|index| self.places.get(index as usize)) {
            lines.push(place.line.clone());
            next = place.inlined_at;
        }
        lines
    }
}
