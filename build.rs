//! Builds the kernels and generates their Rust launchers.
//!
//! [`signature`] parses every `KERNEL(…)` in `kernels/*.cu`, and [`launchers`] generates a Rust
//! struct that launches it. [`compile`] compiles each file with the host C++ compiler (the serial
//! CPU build) and, if nvcc is found, for the GPU. [`constants`] exports the constants that Rust
//! shares.

#[path = "build/archs.rs"]
mod archs;
#[path = "build/compile.rs"]
mod compile;
#[path = "build/constants.rs"]
mod constants;
#[path = "build/launchers.rs"]
mod launchers;
#[path = "build/shape.rs"]
mod shape;
#[path = "build/signature.rs"]
mod signature;

use std::path::{Path, PathBuf};

fn main() {
    if let Err(problem) = build() {
        eprintln!("\nbuilding the kernels failed:\n{problem}\n");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=build");
    commit();
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?);
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(|e| e.to_string())?);

    let sources = files_with_extension(&root.join("kernels"), "cu")?;
    let headers = files_with_extension(&root.join("kernels"), "cuh")?;
    let constants = constants::read_files(headers.iter().chain(&sources).map(PathBuf::as_path))?;
    let mut kernels = Vec::new();
    for source in &sources {
        kernels.extend(signature::read_file(source, &constants)?);
    }
    let serial = compile::serial(&sources, &headers, &out)?;
    let archs = archs()?;
    let code = compile::gpu(&sources, &headers, &out, &archs::options(&archs))?;
    let text = launchers::embed(&sources, &code, &archs)?;
    std::fs::write(out.join("gpu.rs"), text).map_err(|e| e.to_string())?;
    let text = launchers::sources(&sources, &headers, &serial)?;
    std::fs::write(out.join("sources.rs"), text).map_err(|e| e.to_string())?;
    let text = constants::generate(&constants);
    std::fs::write(out.join("constants.rs"), text).map_err(|e| e.to_string())?;
    let text = launchers::generate(&kernels, &serial);
    std::fs::write(out.join("launchers.rs"), text).map_err(|e| e.to_string())
}

/// Returns the GPUs to build machine code for: those in `UDASS_CUDA_ARCHS`, or the usual ones.
fn archs() -> Result<Vec<&'static str>, String> {
    println!("cargo::rerun-if-env-changed=UDASS_CUDA_ARCHS");
    archs::read(&std::env::var("UDASS_CUDA_ARCHS").unwrap_or(archs::USUAL.into()))
}

/// Tells the program which commit it was built from, where the source is a git checkout.
fn commit() {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    // A path that does not exist would make cargo run this script every time.
    if let Some(head) = git(&["rev-parse", "--git-path", "HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
    }
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    println!("cargo::rustc-env=UDASS_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

fn files_with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    Ok(files)
}
