//! Finds nvcc. Tools and tests that compile kernels themselves include this file too.

use std::env;
use std::path::PathBuf;

/// Looks for nvcc in `CUDA_HOME`, then in PATH, then in the NVIDIA wheels of an active Python
/// environment.
pub fn find() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    places.extend(env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin")));
    places.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    if let Some(lib) = env::var_os("VIRTUAL_ENV").map(|venv| PathBuf::from(venv).join("lib")) {
        let pythons = std::fs::read_dir(lib).into_iter().flatten().flatten();
        places.extend(pythons.map(|p| p.path().join("site-packages/nvidia/cu13/bin")));
    }
    places.into_iter().map(|place| place.join("nvcc")).find(|nvcc| nvcc.is_file())
}
