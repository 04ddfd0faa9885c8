//! Compiles kernels to PTX with nvcc, and keeps the text.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;

/// nvcc, and a folder for what it wrote.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Path of nvcc.
    pub nvcc: PathBuf,
    /// Folder for PTX files; their names contain a hash of everything that they depend on.
    pub cache: PathBuf,
}

/// What a kernel file is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// F32 or BF16, as in the macros `UDASS_…`.
    pub types: &'static str,
    /// An architecture, such as `compute_80`.
    pub arch: &'static str,
    /// Multiplications are fused with additions where the source does not ask for it, as in
    /// production.
    pub contract: bool,
}

impl Compiler {
    /// Returns the PTX of a kernel file whose headers are in `include`.
    ///
    /// # Errors
    /// Returns nvcc's messages if it does not accept the file.
    pub fn ptx(&self, source: &Path, include: &Path, target: Target) -> Result<String, Error> {
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |e: std::io::Error| Error::Compile(format!("{path}: {e}"))
        };
        // By its real path: nvcc looks for its headers beside the name that it was called by.
        let nvcc = self.nvcc.canonicalize().map_err(io(&self.nvcc))?;
        let mut command = Command::new(&nvcc);
        command.args(["-std=c++17", "-O3", "--ptx", "-lineinfo"]);
        command.arg(format!("-arch={}", target.arch));
        command.arg(format!("-DUDASS_{}", target.types));
        command.arg(format!("-fmad={}", target.contract));
        command.arg("-I").arg(include).arg(source);

        let mut hasher = DefaultHasher::new();
        format!("{command:?}").hash(&mut hasher);
        std::fs::read(source).map_err(io(source))?.hash(&mut hasher);
        let entries = std::fs::read_dir(include).map_err(io(include))?;
        let mut headers: Vec<PathBuf> = (entries.filter_map(Result::ok))
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "cuh"))
            .collect();
        headers.sort();
        for header in headers {
            std::fs::read(&header).map_err(io(&header))?.hash(&mut hasher);
        }
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        let (types, hash) = (target.types, hasher.finish());
        let kept = self.cache.join(format!("{stem}_{types}_{hash:016x}.ptx"));
        if let Ok(text) = std::fs::read_to_string(&kept) {
            return Ok(text);
        }
        std::fs::create_dir_all(&self.cache).map_err(io(&self.cache))?;
        // Written beside, so that no other process or thread reads a part of it.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let own = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let part = kept.with_extension(format!("{}-{}.part", own.0, own.1));
        let output = command.arg("-o").arg(&part).output().map_err(io(&nvcc))?;
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Compile(format!("{}:\n{messages}", source.display())));
        }
        std::fs::rename(&part, &kept).map_err(io(&kept))?;
        std::fs::read_to_string(&kept).map_err(io(&kept))
    }
}
