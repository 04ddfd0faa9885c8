//! Builds every kernel for the block emulator and as its reference, for every pair of number types.

#[path = "src/compile.rs"]
mod compile;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use compile::Build;

fn main() {
    if let Err(problem) = build() {
        eprintln!("\nbuilding the kernels for the emulator failed:\n{problem}\n");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?);
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(|e| e.to_string())?);
    let kernels = here.parent().ok_or("no parent folder")?.join("kernels");
    println!("cargo::rerun-if-changed={}", kernels.display());
    println!("cargo::rerun-if-changed=runtime.cpp");
    println!("cargo::rerun-if-changed=src/compile.rs");
    println!("cargo::rustc-env=EMULATOR_KERNELS={}", kernels.display());
    println!("cargo::rerun-if-env-changed=CXX");

    let mut sources: Vec<PathBuf> = std::fs::read_dir(&kernels)
        .map_err(|e| format!("{}: {e}", kernels.display()))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    sources.sort();

    let runtime = out.join("runtime.o");
    compile::runtime(&here.join("runtime.cpp"), &runtime)?;
    let mut jobs = VecDeque::new();
    let mut libraries = Vec::new();
    for types in ["F32", "BF16", "F64"] {
        for build in [Build::Emulated, Build::Ordered] {
            let mut objects: Vec<PathBuf> = Vec::new();
            for source in &sources {
                let stem = source.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
                let object = out.join(format!("{stem}_{types}_{}.o", build.name()));
                jobs.push_back((source.clone(), types, build, object.clone()));
                objects.push(object);
            }
            if build == Build::Emulated {
                objects.push(runtime.clone());
            }
            libraries.push((out.join(format!("{}_{types}.so", build.name())), objects));
        }
    }
    compile_all(jobs, &kernels)?;
    libraries.iter().try_for_each(|(library, objects)| compile::link(objects, library))
}

fn compile_all(
    jobs: VecDeque<(PathBuf, &'static str, Build, PathBuf)>,
    include: &Path,
) -> Result<(), String> {
    let width = std::env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let (jobs, problems) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while let Some((source, types, build, object)) =
                    jobs.lock().ok().and_then(|mut jobs| jobs.pop_front())
                {
                    let result = compile::object(&source, include, types, build, &object);
                    if let (Err(problem), Ok(mut problems)) = (result, problems.lock()) {
                        problems.push(problem);
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().map_err(|e| e.to_string())?;
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}
