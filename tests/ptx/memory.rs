//! Copies of a launch's tensors in the number types of a build.

use std::ops::Range;

use half::bf16;
use udass_raw::device::{Arg, ArgElement, Types};
use udass_raw::tensor::DType;

/// The contents of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Numbers of type `T` or `real`.
    Numbers { values: Vec<f64>, dtype: DType },
    /// Integers of this many bytes.
    Integers { bytes: Vec<u8>, width: usize },
}

/// The memory that one or more arguments point into.
#[derive(Clone)]
pub struct Copied {
    original: Range<u64>,
    /// Bytes of an element in the original and in the copy.
    widths: [usize; 2],
    /// The type of the original, if it is a number.
    dtype: DType,
    /// Names of the arguments.
    pub name: String,
    pub written: bool,
    pub content: Content,
}

impl Content {
    /// Returns the bytes on a device.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Content::Integers { bytes, .. } => bytes.clone(),
            Content::Numbers { values, dtype } => match dtype {
                DType::F64 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                DType::Bf16 => {
                    values.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect()
                }
                _ => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            },
        }
    }

    /// Returns the content that bytes of a device have, with the type of this one.
    fn decode(&self, bytes: &[u8]) -> Content {
        match *self {
            Content::Integers { width, .. } => Content::Integers { bytes: bytes.to_vec(), width },
            Content::Numbers { dtype, .. } => {
                Content::Numbers { values: numbers(bytes, dtype), dtype }
            }
        }
    }
}

fn numbers(bytes: &[u8], dtype: DType) -> Vec<f64> {
    match dtype {
        DType::F64 => bytes.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect(),
        DType::Bf16 => {
            bytes.as_chunks().0.iter().map(|&x| bf16::from_le_bytes(x).to_f64()).collect()
        }
        _ => bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x).into()).collect(),
    }
}

/// Returns the type that a build stores an argument's elements in; `None` for integers.
fn stored(element: ArgElement, types: Types) -> Option<DType> {
    match (element, types) {
        (ArgElement::Operand | ArgElement::Real, Types::F64) => Some(DType::F64),
        (ArgElement::Operand, Types::Bf16) => Some(DType::Bf16),
        (ArgElement::Operand | ArgElement::Real, _) => Some(DType::F32),
        _ => None,
    }
}

/// Copies what a launch's arguments point to, rounded to the number types of a build. Overlapping
/// arguments share a copy; `None` if they have different types in that build.
pub fn copies(args: &[Arg], types: Types) -> Option<Vec<Copied>> {
    let mut copies: Vec<Copied> = Vec::new();
    let mut pointers: Vec<_> = (args.iter())
        .filter_map(|arg| match *arg {
            Arg::Pointer { name, element, written, tensor: Some(tensor) } if !tensor.is_empty() => {
                Some((name, element, written, tensor))
            }
            _ => None,
        })
        .collect();
    pointers.sort_by_key(|(.., tensor)| tensor.address);
    for (name, element, written, tensor) in pointers {
        let range = tensor.address..tensor.address + tensor.bytes() as u64;
        let (dtype, kind) = (tensor.dtype, stored(element, types));
        let widths = [dtype.bytes(), kind.unwrap_or(dtype).bytes()];
        match copies.last_mut().filter(|last| range.start < last.original.end) {
            Some(last) => {
                let same = match last.content {
                    Content::Numbers { dtype, .. } => kind == Some(dtype),
                    Content::Integers { width, .. } => kind.is_none() && widths[0] == width,
                };
                if !same {
                    return None;
                }
                last.original.end = last.original.end.max(range.end);
                last.written |= written;
                if !last.name.split('/').any(|known| known == name) {
                    last.name = format!("{}/{name}", last.name);
                }
            }
            None => copies.push(Copied {
                original: range,
                widths,
                dtype,
                name: name.into(),
                written,
                content: match kind {
                    Some(dtype) => Content::Numbers { values: Vec::new(), dtype },
                    None => Content::Integers { bytes: Vec::new(), width: widths[0] },
                },
            }),
        }
    }
    for copy in &mut copies {
        let length = (copy.original.end - copy.original.start) as usize;
        // SAFETY: the arguments are live tensors of the caller, which nothing writes meanwhile.
        let original =
            unsafe { std::slice::from_raw_parts(copy.original.start as *const u8, length) };
        match &mut copy.content {
            Content::Integers { bytes, .. } => *bytes = original.to_vec(),
            Content::Numbers { values, .. } => *values = numbers(original, copy.dtype),
        }
        // From here on, the values are those that the build can store.
        copy.content = copy.content.decode(&copy.content.encode());
    }
    Some(copies)
}

impl Copied {
    /// Returns the same values in double precision.
    pub fn widened(&self) -> Copied {
        let mut wide = self.clone();
        if let Content::Numbers { dtype, .. } = &mut wide.content {
            *dtype = DType::F64;
            wide.widths[1] = 8;
        }
        wide
    }

    /// Returns the copy with the content that `bytes` of a device have.
    pub fn holding(&self, bytes: &[u8]) -> Copied {
        Copied { content: self.content.decode(bytes), ..self.clone() }
    }

    /// Returns the size of an element.
    pub fn element(&self) -> u32 {
        self.widths[1] as u32
    }

    /// Returns the bytes by which the original's address misses alignment, in the copy's elements.
    pub fn misalignment(&self) -> u32 {
        let elements = self.original.start / self.widths[0] as u64;
        (elements * self.widths[1] as u64 % 256) as u32
    }

    /// Overwrites the original with the copy, which must have its type.
    pub fn write_back(&self) {
        let bytes = self.content.encode();
        assert_eq!(self.widths[0], self.widths[1]);
        // SAFETY: the range is that of a live tensor of the caller, and the copy is separate.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.original.start as *mut u8,
                bytes.len(),
            );
        }
    }
}

/// Returns a launch's argument words, given the address of each copy.
pub fn words(args: &[Arg], types: Types, copies: &[Copied], addresses: &[u64]) -> Vec<u64> {
    let word = |arg: &Arg| match arg {
        Arg::Pointer { tensor: Some(tensor), .. } => {
            let home = copies.iter().zip(addresses).find_map(|(copy, &start)| {
                copy.original.contains(&tensor.address).then(|| {
                    let elements = (tensor.address - copy.original.start) / copy.widths[0] as u64;
                    start + elements * copy.widths[1] as u64
                })
            });
            // An empty tensor is never accessed.
            home.unwrap_or(tensor.address)
        }
        arg => arg.word(types),
    };
    args.iter().map(word).collect()
}
