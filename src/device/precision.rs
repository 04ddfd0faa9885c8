//! The number types in which a device stores and computes.

/// Storage and compute types; see `kernels/dtype.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Types {
    /// Single precision throughout.
    F32,
    /// Operands of matmuls and attention in bf16, everything else as in `F32`.
    Bf16,
    /// Double precision throughout.
    F64,
}

/// The precision of matmul and convolution operands. Everything else is single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Not rounded.
    F32,
    /// Rounded to TF32, with a 10-bit mantissa.
    Tf32,
    /// Stored as bf16, with a 7-bit mantissa; so are the operands of attention.
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
