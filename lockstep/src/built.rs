//! What the build script made, and from where.

use std::path::PathBuf;

use crate::compile::Flavour;

/// The folder of the kernels' sources.
pub fn kernels() -> PathBuf {
    env!("LOCKSTEP_KERNELS").into()
}

/// A library that the build made; `types` is F32, BF16 or F64.
pub fn built(types: &str, flavour: Flavour) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join(format!("{}_{types}.so", flavour.name()))
}

/// The object with the hooks' answers, which a library in lockstep is linked with.
pub fn runtime() -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join("runtime.o")
}
