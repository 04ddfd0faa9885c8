//! Where compiled kernels and measured choices are kept on disk.

use std::path::PathBuf;

/// The folder of this program in the user's cache; None where there is no home to keep it in.
pub fn folder() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("udass-raw"))
}
