//! What a pickle's values can be.

use safetensors::Dtype;

pub type Outcome<T> = Result<T, String>;

/// A value's place in the arena.
pub type Id = u32;

#[derive(Clone, Debug)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Little-endian two's complement, longer than 64 bits.
    BigInt(Box<[u8]>),
    Float(f64),
    Text(Box<str>),
    /// Not kept: no tensor needs them.
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Box<Dict>),
    /// A class or function by its dotted name.
    Global(Box<str>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    /// An object of a class that is not understood.
    Foreign(Box<Foreign>),
}

#[derive(Clone, Debug, Default)]
pub struct Dict {
    pub ordered: bool,
    pub items: Vec<(Id, Id)>,
}

#[derive(Clone, Debug)]
pub struct Foreign {
    /// Its class or function; none where that has no name.
    pub global: Option<Id>,
    /// Everything that was handed to it.
    pub given: Vec<Id>,
}

/// Numbers that stand elsewhere in the file.
#[derive(Clone, Debug)]
pub struct Storage {
    pub key: Box<str>,
    pub dtype: Dtype,
    pub elements: usize,
    /// First element of the view that this is (only in the older format).
    pub first: usize,
}

#[derive(Clone, Debug)]
pub struct Tensor {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// The names of PyTorch's storages.
const STORAGES: [(&str, Dtype); 10] = [
    ("Float", Dtype::F32),
    ("Double", Dtype::F64),
    ("Half", Dtype::F16),
    ("BFloat16", Dtype::BF16),
    ("Long", Dtype::I64),
    ("Int", Dtype::I32),
    ("Short", Dtype::I16),
    ("Char", Dtype::I8),
    ("Byte", Dtype::U8),
    ("Bool", Dtype::BOOL),
];

/// The type of the numbers in a storage class, by its dotted name.
pub fn dtype(class: &str) -> Option<Dtype> {
    let class = class.strip_prefix("torch.")?.strip_suffix("Storage")?;
    let class = class.strip_prefix("cuda.").unwrap_or(class);
    STORAGES.iter().find(|(name, _)| *name == class).map(|(_, dtype)| *dtype)
}

/// PyTorch's name for the storage of a type, where it has one.
pub fn storage_name(dtype: Dtype) -> Option<&'static str> {
    STORAGES.iter().find(|(_, known)| *known == dtype).map(|(name, _)| *name)
}
