//! In which number types a device stores and computes.

/// How numbers are stored: see `kernels/dtype.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Types {
    F32,
    /// Operands of products and attention in 16 bits, all else as in `F32`.
    Bf16,
    F64,
}

/// How products and convolutions take their operands. All else is in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    /// Rounded to 10 bits behind the point.
    Tf32,
    /// Kept in memory with 7 bits behind the point, and those of attention too.
    Bf16,
}

impl Precision {
    pub(super) fn types(self) -> Types {
        match self {
            Precision::F32 | Precision::Tf32 => Types::F32,
            Precision::Bf16 => Types::Bf16,
        }
    }
}
