//! Compiles the kernels with the host compiler (the serial CPU build) and with nvcc for the GPU.
//!
//! File names of objects contain a hash of everything they depend on, so editing one kernel
//! recompiles one file.

#[path = "nvcc.rs"]
mod nvcc;
#[path = "serial.rs"]
mod serial;

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A variant of the serial CPU build.
#[derive(Clone)]
pub struct Serial {
    /// Suffix of the kernels' symbols.
    pub suffix: String,
    /// Name of the number types in the macro `UDASS_…`; `types` and `level` name variants of
    /// `Types` and `Level` in src/device.
    define: &'static str,
    pub types: &'static str,
    pub level: &'static str,
}

impl Serial {
    /// Returns the compiler's flags.
    pub fn flags(&self) -> Vec<String> {
        serial::flags(self.define, self.level, &self.suffix)
    }
}

struct Compilation {
    command: Command,
    output: PathBuf,
    what: String,
}

/// Returns whether only Rust is checked (lints, documentation): kernels are not compiled, and the
/// result cannot be linked.
fn skipped() -> bool {
    println!("cargo::rerun-if-env-changed=UDASS_SKIP_KERNELS");
    env::var_os("UDASS_SKIP_KERNELS").is_some()
}

/// Returns the flags for the sanitizers in `UDASS_SANITIZE`, a list as for the compiler's own option.
/// What the result is linked with must bring their runtime.
fn sanitizers() -> Vec<String> {
    println!("cargo::rerun-if-env-changed=UDASS_SANITIZE");
    let named = env::var("UDASS_SANITIZE").ok().filter(|named| !named.is_empty());
    let flags = |named| {
        vec![format!("-fsanitize={named}"), "-fno-sanitize-recover=all".into(), "-g".into()]
    };
    named.map_or_else(Vec::new, flags)
}

/// Compiles every kernel file for every variant into one static library, and returns the variants.
pub fn serial(sources: &[PathBuf], headers: &[PathBuf], out: &Path) -> Result<Vec<Serial>, String> {
    let x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let variant = |define: &'static str, level: &'static str| Serial {
        suffix: format!("{}_{}", define.to_lowercase(), level.to_lowercase()),
        define,
        types: if define == "BF16" { "Bf16" } else { define },
        level,
    };
    let mut variants = ["F32", "BF16", "F64"].map(|types| variant(types, "Base")).to_vec();
    if x86 {
        variants.push(variant("F32", "V3"));
        variants.push(variant("F32", "V4"));
        variants.push(variant("BF16", "V3"));
    }
    if skipped() {
        return Ok(variants);
    }
    let sanitizers = sanitizers();
    let compiler = cc::Build::new().cpp(true).debug(false).warnings(false).get_compiler();
    let mut compilations = Vec::new();
    for source in sources {
        for variant in &variants {
            let mut command = Command::new(compiler.path());
            command.args(variant.flags());
            command.args(&sanitizers).args(["-x", "c++", "-c"]).arg(source);
            compilations.push(compilation(command, source, headers, out, &variant.suffix, "o")?);
        }
    }
    let objects = run(compilations)?;
    cc::Build::new().cpp(true).objects(objects).compile("udass_kernels");
    Ok(variants)
}

/// Number types that kernels are built for on the GPU, as in the macros `UDASS_F32` and
/// `UDASS_BF16`.
pub const GPU_TYPES: [&str; 2] = ["F32", "BF16"];

/// Returns the paths of the GPU code of each file, in order, for each of [`GPU_TYPES`]. `archs` are
/// nvcc's options for the GPUs to build it for. The lists are empty if nvcc is not found: the program then compiles its kernels at first use.
///
/// # Errors
/// Returns an error if a kernel does not compile, or if nvcc is required but not found.
pub fn gpu(
    sources: &[PathBuf],
    headers: &[PathBuf],
    out: &Path,
    archs: &[String],
) -> Result<Vec<Vec<PathBuf>>, String> {
    for variable in ["CUDA_HOME", "VIRTUAL_ENV", "PATH", "UDASS_REQUIRE_NVCC"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if skipped() {
        return Ok(vec![Vec::new(); GPU_TYPES.len()]);
    }
    let Some(nvcc) = nvcc::find() else {
        if env::var_os("UDASS_REQUIRE_NVCC").is_some() {
            return Err("UDASS_REQUIRE_NVCC is set, but nvcc was not found".into());
        }
        println!(
            "cargo::warning=nvcc was not found: for a GPU, the kernels are compiled at first use"
        );
        return Ok(vec![Vec::new(); GPU_TYPES.len()]);
    };
    let mut compilations = Vec::new();
    for types in GPU_TYPES {
        for source in sources {
            let mut command = Command::new(&nvcc);
            command.args(["-std=c++17", "-O3", "--fatbin", "-Werror", "all-warnings"]);
            command.args(archs);
            command.arg(format!("-DUDASS_{types}")).arg(source);
            compilations.push(compilation(
                command,
                source,
                headers,
                out,
                &types.to_lowercase(),
                "fatbin",
            )?);
        }
    }
    Ok(run(compilations)?.chunks(sources.len()).map(<[PathBuf]>::to_vec).collect())
}

fn compilation(
    mut command: Command,
    source: &Path,
    headers: &[PathBuf],
    out: &Path,
    suffix: &str,
    extension: &str,
) -> Result<Compilation, String> {
    let mut hasher = DefaultHasher::new();
    format!("{command:?}").hash(&mut hasher);
    for path in std::iter::once(source).chain(headers.iter().map(PathBuf::as_path)) {
        std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?.hash(&mut hasher);
    }
    let stem = source.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let output = out.join(format!("{stem}_{suffix}_{:016x}.{extension}", hasher.finish()));
    command.arg("-o").arg(&output);
    Ok(Compilation { command, output, what: format!("{} ({suffix})", source.display()) })
}

/// Runs the jobs whose output does not exist yet, as many in parallel as cargo allows.
fn run(compilations: Vec<Compilation>) -> Result<Vec<PathBuf>, String> {
    let width = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let outputs: Vec<PathBuf> =
        compilations.iter().map(|compilation| compilation.output.clone()).collect();
    let pending: Vec<Compilation> =
        compilations.into_iter().filter(|compilation| !compilation.output.exists()).collect();
    let count = pending.len();
    let (next, queue) = (AtomicUsize::new(0), Mutex::new(pending));
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let compilation = queue.lock().ok().and_then(|mut queue| queue.pop());
                    let failed = compilation.and_then(|compilation| compilation.perform().err());
                    if let (Some(problem), Ok(mut problems)) = (failed, problems.lock()) {
                        problems.push(problem);
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().map_err(|e| e.to_string())?;
    if problems.is_empty() { Ok(outputs) } else { Err(problems.join("\n")) }
}

impl Compilation {
    fn perform(mut self) -> Result<(), String> {
        let result = self.command.output();
        let output = result.map_err(|e| {
            format!("{}: {e} (a C++17 compiler is needed)", self.command.get_program().display())
        })?;
        if output.status.success() {
            return Ok(());
        }
        let _ = std::fs::remove_file(&self.output);
        Err(format!("{}:\n{}", self.what, String::from_utf8_lossy(&output.stderr)))
    }
}
