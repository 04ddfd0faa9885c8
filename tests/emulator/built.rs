//! Kernels of the tests themselves, compiled when the tests run.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use emulator::{Argument, Build, Launch, Library, Value, compile};

/// Compiles `tests/emulator/kernels/{name}.cu` in single precision. Must be called once per name.
pub fn library(name: &str, build: Build) -> Library {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join(format!("tests/emulator/kernels/{name}.cu"));
    // The object file stays, because source lines are looked up in it.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let object = folder.join(format!("{name}_{}.o", build.name()));
    let out = object.with_extension("so");
    compile::object(&source, &emulator::kernels(), "F32", build, &object).unwrap();
    let mut objects: Vec<PathBuf> = vec![object];
    if build == Build::Emulated {
        objects.push(emulator::runtime());
    }
    compile::link(&objects, &out).unwrap();
    Library::open(&out, build).unwrap()
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

pub fn launch(kernel: &str, values: Vec<Value>, shared: usize) -> Launch<'_> {
    Launch { kernel, values, blocks: 1, shared, bf16: false }
}

/// Runs a kernel of tensor_cores.cu in one warp, in the order of threads that `seed` determines.
/// Returns false where it cannot be built, which is never the case here.
pub fn run_warp(kernel: &str, values: Vec<Value>, shared: usize, seed: u64) -> bool {
    static KERNELS: LazyLock<Library> = LazyLock::new(|| library("tensor_cores", Build::Emulated));
    emulator::watch(&KERNELS, &launch(kernel, values, shared), 32, seed).unwrap();
    true
}
