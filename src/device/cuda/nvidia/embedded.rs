//! Embedded by the build: the kernels' machine code, if nvcc was present.

use crate::device::precision::Types;
use crate::{Error, Result};

/// The driver reads machine code as words, so it must start at a multiple of their size.
#[allow(dead_code)] // Without nvcc, there is none.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

#[allow(unused_macros)]
macro_rules! include_aligned {
    ($path:expr) => {{
        static CODE: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &CODE.0
    }};
}

include!(concat!(env!("OUT_DIR"), "/gpu.rs"));

/// Files in kernels/ with their machine code; empty if nvcc was absent at build time.
pub type Embedded = &'static [(&'static str, &'static [u8])];

/// Returns the suffix of kernels built for these types, and their embedded machine code.
pub fn built(types: Types) -> Result<(&'static str, Embedded)> {
    match types {
        Types::F32 => Ok(("f32", FATBINS_F32)),
        Types::Bf16 => Ok(("bf16", FATBINS_BF16)),
        Types::F64 => Err(Error::device("the GPU kernels do not compute in double precision")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sources::SOURCES;

    #[test]
    fn each_kernel_has_a_source_and_code_where_any_has() {
        for kernel in crate::device::kernels::ALL {
            let is = |file: &str| file == kernel.file;
            assert!(SOURCES.iter().any(|(file, _)| is(file)), "{}", kernel.name);
            for types in [Types::F32, Types::Bf16] {
                let embedded = built(types).unwrap().1;
                let there = embedded.iter().any(|(file, _)| is(file));
                assert!(embedded.is_empty() || there, "{}, {types:?}", kernel.name);
                for (file, code) in embedded {
                    assert!((code.as_ptr() as usize).is_multiple_of(16), "{file}, {types:?}");
                }
            }
        }
    }
}
