//! The disk cache for compiled kernels and autotuning results.

use std::path::PathBuf;

/// Returns this program's folder in the user's cache; None without a home directory.
pub fn folder() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("udass-raw"))
}
