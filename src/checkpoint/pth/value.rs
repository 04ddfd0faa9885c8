//! The values in a pickle.

use safetensors::Dtype;

/// The result of reading a torch file; the error completes a sentence about the file.
pub type Outcome<T> = Result<T, String>;

/// The index of a value in the arena.
pub type Id = u32;

/// A value in a pickle.
#[derive(Clone, Debug)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, as little-endian two's complement.
    BigInt(Box<[u8]>),
    Float(f64),
    Text(Box<str>),
    /// A byte string. Only those of scalars are kept; a longer one is empty.
    Bytes(Box<[u8]>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Box<Dict>),
    /// A class or function, by its dotted name.
    Global(Box<str>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    /// An object of an unknown class.
    Foreign(Box<Foreign>),
}

/// A dictionary, as key-value pairs in order.
#[derive(Clone, Debug, Default)]
pub struct Dict {
    /// Whether it is an `OrderedDict`.
    pub ordered: bool,
    /// Key-value pairs, in the order of the file.
    pub items: Vec<(Id, Id)>,
}

/// An object of an unknown class, or the result of an unknown function.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// The class or function; `None` if it has no name.
    pub global: Option<Id>,
    /// All values that were passed to it.
    pub given: Vec<Id>,
}

/// A reference to elements stored elsewhere in the file.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Key of the storage, unique in the file.
    pub key: Box<str>,
    /// The element type.
    pub dtype: Dtype,
    /// Number of elements.
    pub elements: usize,
    /// First element, if this is a view of another storage (only in the legacy format).
    pub first: usize,
}

/// A strided view of a storage. Offset and strides are in elements.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// The names of PyTorch's storage classes, without the suffix `Storage`.
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

/// Returns the element type of a storage class, given its dotted name.
pub fn dtype(class: &str) -> Option<Dtype> {
    let class = class.strip_prefix("torch.")?.strip_suffix("Storage")?;
    let class = class.strip_prefix("cuda.").unwrap_or(class);
    STORAGES.iter().find(|(name, _)| *name == class).map(|(_, dtype)| *dtype)
}

/// Returns PyTorch's name for the storage of a type, if it has one.
pub fn storage_name(dtype: Dtype) -> Option<&'static str> {
    STORAGES.iter().find(|(_, known)| *known == dtype).map(|(name, _)| *name)
}
