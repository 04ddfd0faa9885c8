//! Kernels of the block emulator's tests, as nvcc compiles them.

use std::path::Path;

use emulator::{Argument, Value};
use ptx::{Error, Memory, Options, Program, Target, Tensor};

use crate::kernels::skip;
use crate::{nvcc, programs};

/// Compiles a kernel file of the tests in single precision; `None` where nvcc is not found.
pub fn programs(name: &str) -> Option<Vec<Program>> {
    if nvcc::find().is_none() {
        let required = std::env::var_os("UDASS_REQUIRE_NVCC").is_some();
        assert!(!required, "UDASS_REQUIRE_NVCC is set, but nvcc was not found");
        skip(name);
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join(format!("tests/emulator/kernels/{name}.cu"));
    let target = Target { types: "F32", arch: programs::ARCHITECTURES[0], contract: true };
    let text = programs::compile(&source, target).unwrap();
    Some(ptx::decode(&text).unwrap())
}

/// A pointer argument that covers all of `data`.
pub fn pointer<N>(name: &'static str, data: &mut [N], written: bool) -> Value {
    Value::Pointer(Argument {
        name,
        address: data.as_mut_ptr() as u64,
        bytes: size_of_val(data),
        element: size_of::<N>(),
        written,
        operand: false,
    })
}

/// Runs a kernel on copies of the arguments, and copies its results back.
pub fn execute(
    program: &Program,
    values: &[Value],
    [blocks, threads, shared]: [u32; 3],
) -> Result<(), Error> {
    let mut memory = Memory::default();
    let mut copied = Vec::new();
    let mut arguments = Vec::new();
    for value in values {
        arguments.push(match value {
            Value::Word(word) => *word,
            Value::Null => 0,
            Value::Pointer(a) => {
                // SAFETY: `pointer` made the argument from a slice, which is still borrowed.
                let bytes = unsafe { std::slice::from_raw_parts(a.address as *const u8, a.bytes) };
                copied.push(a);
                memory.add(Tensor {
                    name: a.name.into(),
                    bytes: bytes.to_vec(),
                    element: a.element as u32,
                    written: a.written,
                    misalignment: 0,
                })
            }
        });
    }
    let launch = ptx::Launch { program, arguments: &arguments, blocks, threads, shared };
    ptx::run(&mut memory, &launch, Options { patience: 1 << 20, ..Options::default() })?;
    for (index, argument) in copied.into_iter().enumerate() {
        let bytes = memory.contents(index);
        // SAFETY: as above; the slice is as long, and mutable.
        unsafe {
            let to = argument.address as *mut u8;
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }
    Ok(())
}

/// Runs a kernel of tensor_cores.cu in one warp. Returns false where nvcc is not found.
pub fn run_warp(kernel: &str, values: Vec<Value>, shared: usize, _: u64) -> bool {
    let Some(programs) = programs("tensor_cores") else { return false };
    let symbol = format!("{kernel}_f32");
    let program = programs.iter().find(|program| *program.name == *symbol).unwrap();
    execute(program, &values, [1, 32, shared as u32]).unwrap();
    true
}
