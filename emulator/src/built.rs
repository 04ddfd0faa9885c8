//! Paths of the kernels' sources and of what the build script made.

use std::path::PathBuf;

use crate::compile::Build;

/// Returns the folder of the kernels' sources.
pub fn kernels() -> PathBuf {
    env!("EMULATOR_KERNELS").into()
}

/// Returns the library of one flavor; `types` is F32, BF16 or F64.
pub fn built(types: &str, build: Build) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join(format!("{}_{types}.so", build.name()))
}

/// Returns the object with the hooks, which every library for the block emulator is linked with.
pub fn runtime() -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join("runtime.o")
}
