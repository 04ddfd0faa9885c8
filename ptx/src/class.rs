//! The classes that executed instructions are counted in.

use crate::op::Space;

/// What an instruction occupies, for counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Loads from global memory.
    GlobalLoad,
    /// Stores to global memory.
    GlobalStore,
    /// Loads from shared memory.
    SharedLoad,
    /// Stores to shared memory.
    SharedStore,
    /// Loads from local memory.
    LocalLoad,
    /// Stores to local memory.
    LocalStore,
    /// Loads of parameters, from constant memory.
    Parameter,
    /// Atomic operations in global or shared memory.
    Atomic,
    /// Single-precision add, multiply, fused multiply-add, minimum, maximum, negation.
    Fp32,
    /// Division, square root, reciprocal and the special function unit's approximations.
    Fp32Special,
    /// Conversions between types.
    Conversion,
    /// Integer arithmetic of up to 32 bits, and products of two such numbers.
    Integer,
    /// 64-bit integer arithmetic, most of it on addresses, without the classes below.
    LongInteger,
    /// 64-bit products, which the hardware puts together from shorter ones.
    LongProduct,
    /// 32-bit integer division and remainder, a sequence of instructions on the hardware.
    ShortDivision,
    /// 64-bit integer division and remainder, which are a routine on the hardware.
    IntegerDivision,
    /// Comparisons and selects of up to 32 bits, and predicate logic.
    Predicate,
    /// Comparisons and selects of 64-bit integers.
    LongPredicate,
    /// Moves between registers, most of which the assembler removes.
    Move,
    /// Branches and exits.
    Control,
    /// Tensor-core multiplications.
    Mma,
    /// `ldmatrix`.
    LoadMatrix,
    /// Shuffles, votes and other exchanges between lanes.
    WarpExchange,
    /// Barriers of a block or a warp, and fences.
    Barrier,
    /// `cp.async` and its groups.
    AsyncCopy,
}

impl Class {
    /// All classes, in the order of their values.
    pub const ALL: [Class; 25] = [
        Class::GlobalLoad,
        Class::GlobalStore,
        Class::SharedLoad,
        Class::SharedStore,
        Class::LocalLoad,
        Class::LocalStore,
        Class::Parameter,
        Class::Atomic,
        Class::Fp32,
        Class::Fp32Special,
        Class::Conversion,
        Class::Integer,
        Class::LongInteger,
        Class::LongProduct,
        Class::ShortDivision,
        Class::IntegerDivision,
        Class::Predicate,
        Class::LongPredicate,
        Class::Move,
        Class::Control,
        Class::Mma,
        Class::LoadMatrix,
        Class::WarpExchange,
        Class::Barrier,
        Class::AsyncCopy,
    ];

    /// Returns the class of loads from a state space; `None` if the address decides it.
    pub(crate) fn of_load(space: Space) -> Option<Class> {
        match space {
            Space::Global => Some(Class::GlobalLoad),
            Space::Shared => Some(Class::SharedLoad),
            Space::Local => Some(Class::LocalLoad),
            Space::Generic => None,
        }
    }

    /// Returns the class of stores to a state space; `None` if the address decides it.
    pub(crate) fn of_store(space: Space) -> Option<Class> {
        match space {
            Space::Global => Some(Class::GlobalStore),
            Space::Shared => Some(Class::SharedStore),
            Space::Local => Some(Class::LocalStore),
            Space::Generic => None,
        }
    }

    /// Returns the name in the JSON dump.
    pub fn name(self) -> &'static str {
        match self {
            Class::GlobalLoad => "global_load",
            Class::GlobalStore => "global_store",
            Class::SharedLoad => "shared_load",
            Class::SharedStore => "shared_store",
            Class::LocalLoad => "local_load",
            Class::LocalStore => "local_store",
            Class::Parameter => "parameter",
            Class::Atomic => "atomic",
            Class::Fp32 => "fp32",
            Class::Fp32Special => "fp32_special",
            Class::Conversion => "conversion",
            Class::Integer => "integer",
            Class::LongInteger => "long_integer",
            Class::LongProduct => "long_product",
            Class::ShortDivision => "short_division",
            Class::IntegerDivision => "integer_division",
            Class::Predicate => "predicate",
            Class::LongPredicate => "long_predicate",
            Class::Move => "move",
            Class::Control => "control",
            Class::Mma => "mma",
            Class::LoadMatrix => "ldmatrix",
            Class::WarpExchange => "warp_exchange",
            Class::Barrier => "barrier",
            Class::AsyncCopy => "async_copy",
        }
    }
}
