//! The disk cache for compiled kernels and autotuning results.

use std::path::PathBuf;

/// The folder that keeps compiled kernels and autotuning results between processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// This library's folder in the user's cache (`XDG_CACHE_HOME`, or `~/.cache`).
    #[default]
    Usual,
    /// A folder of the program's.
    Folder(PathBuf),
    /// Nowhere: kernels that were not compiled with the program are compiled anew in each process,
    /// and the libraries' first choice of an algorithm is used.
    None,
}

impl Cache {
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Cache::Usual => folder(),
            Cache::Folder(folder) => Some(folder.clone()),
            Cache::None => None,
        }
    }
}

/// Returns this program's folder in the user's cache; None without a home directory.
pub fn folder() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("udass-raw"))
}
