//! Element types of tensors, and the host types that correspond to them.

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    /// The upper half of single precision.
    Bf16,
    F64,
    U8,
    I32,
    I64,
    U64,
}

impl DType {
    /// Size of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::U8 => 1,
            DType::Bf16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }
}

/// Host types that a tensor can be uploaded from and read into.
pub trait Element: bytemuck::Pod {
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),*) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}
element!(f32 => F32, half::bf16 => Bf16, f64 => F64, u8 => U8, i32 => I32, i64 => I64, u64 => U64);
