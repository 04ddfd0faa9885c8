//! The operations of the machine, with registers as slots and labels as indices.

/// A register's index in its file. There is a file of 64-bit registers, one of 32-bit registers
/// (16-bit ones take the low half of a slot), and one of predicates.
pub type Slot = u32;

/// A 32-bit operand, or a narrower one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word {
    Register(Slot),
    Constant(u32),
}

/// A 64-bit operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Long {
    Register(Slot),
    Constant(u64),
}

/// A predicate operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Predicate {
    Register { slot: Slot, negated: bool },
    Constant(bool),
}

/// Width and signedness of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integer {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
}

impl Integer {
    pub fn bytes(self) -> u32 {
        match self {
            Integer::U8 | Integer::S8 => 1,
            Integer::U16 | Integer::S16 => 2,
            Integer::U32 | Integer::S32 => 4,
            Integer::U64 | Integer::S64 => 8,
        }
    }

    pub fn signed(self) -> bool {
        matches!(self, Integer::S8 | Integer::S16 | Integer::S32 | Integer::S64)
    }
}

/// An operation on one or two integers; the others take their second operand as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerOp {
    Add,
    Sub,
    MulLow,
    MulHigh,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    Not,
    Neg,
    Abs,
    PopCount,
    LeadingZeros,
    ReverseBits,
}

/// An operation on one, two or three single-precision numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    MinNan,
    MaxNan,
    Fma,
    Neg,
    Abs,
    Sqrt,
    Reciprocal,
    /// The special function unit's operations, with a documented error.
    ReciprocalApprox,
    SqrtApprox,
    ReciprocalSqrtApprox,
    Exp2Approx,
    Log2Approx,
    SinApprox,
    CosApprox,
    TanhApprox,
    DivApprox,
}

impl FloatOp {
    /// Returns whether the result has a documented error instead of being rounded correctly.
    pub fn is_approximate(self) -> bool {
        matches!(
            self,
            FloatOp::ReciprocalApprox
                | FloatOp::SqrtApprox
                | FloatOp::ReciprocalSqrtApprox
                | FloatOp::Exp2Approx
                | FloatOp::Log2Approx
                | FloatOp::SinApprox
                | FloatOp::CosApprox
                | FloatOp::TanhApprox
                | FloatOp::DivApprox
        )
    }
}

/// A comparison. For floats, the unordered variants are true if an operand is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    EqualOrNan,
    NotEqualOrNan,
    LessOrNan,
    LessEqualOrNan,
    GreaterOrNan,
    GreaterEqualOrNan,
    BothNumbers,
    AnyNan,
}

/// How predicates are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Xor,
}

/// What a comparison compares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compared {
    Words { kind: Integer, a: Word, b: Word },
    Longs { signed: bool, a: Long, b: Long },
    Floats { flush: bool, a: Word, b: Word },
}

/// Rounding to an integer, or to a shorter float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    Zero,
    Down,
    Up,
}

/// A conversion between types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// Between integers: the low bits, extended as the source's signedness says.
    Integer {
        from: Integer,
        to: Integer,
    },
    IntegerToFloat {
        from: Integer,
        rounding: Rounding,
    },
    /// Saturates; NaN becomes 0, as on the hardware.
    FloatToInteger {
        to: Integer,
        rounding: Rounding,
        flush: bool,
    },
    /// To an integral float.
    FloatToIntegral {
        rounding: Rounding,
        flush: bool,
        saturate: bool,
    },
    /// f32 to f32 without rounding to an integer.
    Float {
        flush: bool,
        saturate: bool,
    },
    ToBf16 {
        relu: bool,
    },
    /// Two numbers into one register, the first in the upper half.
    ToBf16Pair {
        relu: bool,
    },
    FromBf16,
    /// To nearest, ties away from zero.
    ToTf32,
}

/// Where a 32-bit or a 64-bit value comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Either {
    Word(Word),
    Long(Long),
}

/// A register of either file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Word(Slot),
    Long(Slot),
}

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Global,
    Shared,
    Local,
    /// Resolved by the address, when it is executed.
    Generic,
}

/// The address of an access: a register or a constant, plus a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Address {
    pub base: Either,
    pub offset: i64,
}

/// A load's or store's shape: up to four elements of up to eight bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Bytes of an element.
    pub bytes: u32,
    /// Elements that are sign-extended when loaded.
    pub signed: bool,
    pub count: u32,
}

/// An atomic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    FloatAdd,
}

/// How a shuffle chooses the lane that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Index,
    Up,
    Down,
    Butterfly,
}

/// What a vote returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    Ballot,
    All,
    Any,
    Uniform,
}

/// Operands of a tensor-core multiplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// m16n8k16, bf16.
    Bf16,
    /// m16n8k16, f16.
    F16,
    /// m16n8k8, tf32.
    Tf32,
}

/// An operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Integer {
        op: IntegerOp,
        kind: Integer,
        d: Target,
        a: Either,
        b: Either,
    },
    /// a·b + c, the low half of the product, or its high half.
    MulAdd {
        kind: Integer,
        high: bool,
        d: Target,
        a: Either,
        b: Either,
        c: Either,
    },
    /// The whole product of 16- or 32-bit numbers, plus `c` if present.
    MulWide {
        kind: Integer,
        d: Target,
        a: Word,
        b: Word,
        c: Option<Either>,
    },
    Float {
        op: FloatOp,
        flush: bool,
        saturate: bool,
        d: Slot,
        a: Word,
        b: Word,
        c: Word,
    },
    Compare {
        comparison: Comparison,
        of: Compared,
        d: Slot,
        /// Receives the negated comparison, combined in the same way.
        other: Option<Slot>,
        with: Option<(Logic, Predicate)>,
    },
    Logic {
        op: Logic,
        d: Slot,
        a: Predicate,
        b: Predicate,
    },
    MovePredicate {
        d: Slot,
        a: Predicate,
    },
    Move {
        d: Target,
        a: Either,
    },
    Select {
        d: Target,
        a: Either,
        b: Either,
        by: Predicate,
    },
    /// Registers of 16 or 32 bits into one twice as wide, the first in the low half.
    Pack {
        d: Target,
        low: Word,
        high: Word,
    },
    Unpack {
        low: Option<Slot>,
        high: Option<Slot>,
        a: Either,
    },
    Convert {
        conversion: Conversion,
        d: Target,
        a: Either,
        b: Word,
    },
    Permute {
        d: Slot,
        a: Word,
        b: Word,
        selector: Word,
    },
    ExtractBits {
        kind: Integer,
        d: Target,
        a: Either,
        position: Word,
        length: Word,
    },
    InsertBits {
        d: Target,
        a: Either,
        b: Either,
        position: Word,
        length: Word,
    },
    /// The lookup table applied to three words.
    Logic3 {
        table: u8,
        d: Slot,
        a: Word,
        b: Word,
        c: Word,
    },
    FunnelShift {
        right: bool,
        wrap: bool,
        d: Slot,
        low: Word,
        high: Word,
        by: Word,
    },
    /// A parameter, at a byte offset.
    LoadParameter {
        offset: u32,
        bytes: u32,
        signed: bool,
        d: Target,
    },
    Load {
        space: Space,
        coherent: bool,
        shape: Shape,
        d: [Target; 4],
        from: Address,
    },
    Store {
        space: Space,
        shape: Shape,
        a: [Either; 4],
        to: Address,
    },
    Atomic {
        op: AtomicOp,
        space: Space,
        kind: Integer,
        d: Option<Target>,
        at: Address,
        a: Either,
        b: Either,
    },
    /// Converts an address of a state space to a generic one, or back.
    ConvertAddress {
        space: Space,
        to_space: bool,
        d: Target,
        a: Either,
    },
    Branch {
        target: u32,
    },
    Exit,
    Barrier,
    WarpBarrier {
        mask: Word,
    },
    /// A memory fence, which orders nothing that a barrier does not order here.
    Fence,
    Shuffle {
        how: Shuffle,
        d: Slot,
        found: Option<Slot>,
        a: Word,
        b: Word,
        c: Word,
        mask: Word,
    },
    Vote {
        what: Vote,
        d: Slot,
        a: Predicate,
        mask: Word,
    },
    ActiveMask {
        d: Slot,
    },
    /// The lanes that hold the same value.
    MatchAny {
        d: Slot,
        a: Either,
        mask: Word,
    },
    /// Combines a word of each lane.
    Reduce {
        op: IntegerOp,
        signed: bool,
        d: Slot,
        a: Word,
        mask: Word,
    },
    LoadMatrix {
        transposed: bool,
        d: [Slot; 4],
        count: u32,
        from: Address,
    },
    Multiply {
        fragments: Fragments,
        d: [Slot; 4],
        a: [Word; 4],
        b: [Word; 2],
        c: [Word; 4],
    },
    CopyAsync {
        bytes: u32,
        to: Address,
        from: Address,
        source_bytes: Option<Word>,
    },
    CommitGroup,
    /// Waits for all but the last groups.
    WaitGroup {
        pending: u32,
    },
    /// Waits for all copies, committed or not.
    WaitAll,
}
