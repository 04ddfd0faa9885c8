//! The syntax tree of a PTX module: kernels with their declarations and instructions, names not yet
//! resolved.

/// A module, as nvcc writes one for each source file.
#[derive(Debug, Default)]
pub struct Module<'a> {
    /// Paths by number, as `.loc` refers to them.
    pub files: Vec<(u32, &'a str)>,
    /// Variables outside of kernels.
    pub variables: Vec<Variable<'a>>,
    pub entries: Vec<Entry<'a>>,
}

/// A state space that variables are declared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Shared,
    Local,
}

/// An array in shared or local memory.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'a> {
    pub home: Home,
    pub name: &'a str,
    pub align: u32,
    /// None for an array without a size, which is the launch's dynamic shared memory.
    pub bytes: Option<u32>,
}

/// A kernel.
#[derive(Debug, Default)]
pub struct Entry<'a> {
    pub name: &'a str,
    /// Names and sizes in bytes.
    pub parameters: Vec<(&'a str, u32)>,
    pub registers: Vec<Registers<'a>>,
    pub variables: Vec<Variable<'a>>,
    /// Labels and the instruction that follows them.
    pub labels: Vec<(&'a str, usize)>,
    pub locations: Vec<Location>,
    pub statements: Vec<Statement<'a>>,
}

/// A declaration of registers: `count` with numbered names, or one if `count` is None.
#[derive(Clone, Copy, Debug)]
pub struct Registers<'a> {
    pub of_type: &'a str,
    pub name: &'a str,
    pub count: Option<u32>,
}

/// A source position, and the position that its function was inlined at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub file: u32,
    pub line: u32,
    pub column: u32,
    /// Index among the kernel's locations.
    pub inlined_at: Option<u32>,
}

/// An instruction.
#[derive(Debug)]
pub struct Statement<'a> {
    /// The predicate that it depends on, and whether it is negated.
    pub guard: Option<(&'a str, bool)>,
    pub opcode: &'a str,
    pub operands: Vec<Operand<'a>>,
    /// Line of the PTX text.
    pub line: u32,
    /// Index among the kernel's locations.
    pub location: Option<u32>,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A register, variable, parameter or label.
    Name(&'a str),
    /// A number: an integer, or the bits of a float.
    Number(u64),
    /// `{a, b}`.
    Vector(Vec<Operand<'a>>),
    /// `[base + offset]`.
    Address { base: Option<&'a str>, offset: i64 },
    /// `a|b`, of which the second is a predicate.
    Pair(&'a str, &'a str),
    /// `!p`.
    Not(&'a str),
}
