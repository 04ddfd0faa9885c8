//! The kernels as nvcc compiles them, and the serial builds that they are compared with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use emulator::{Build, Library};
use ptx::{Compiler, Program, Target};
use udass_raw::device::{Kernel, Types};

use crate::nvcc;

/// Names a folder that replaces `kernels/`, for mutation testing.
pub const KERNELS: &str = "PTX_KERNELS";
/// Names the folder for PTX.
pub const CACHE: &str = "PTX_CACHE";

/// The architectures that the build compiles for.
pub const ARCHITECTURES: [&str; 2] = ["compute_80", "compute_90a"];

type Programs = Arc<OnceLock<Result<Vec<Arc<Program>>, String>>>;

/// Architectures by file and types.
type Architectures = HashMap<(&'static str, &'static str), Vec<&'static str>>;

static PROGRAMS: LazyLock<Mutex<HashMap<(&'static str, Target), Programs>>> =
    LazyLock::new(Mutex::default);

fn kernels() -> PathBuf {
    std::env::var_os(KERNELS).map_or_else(emulator::kernels, PathBuf::from)
}

/// Returns the name in the macro `UDASS_…`.
pub fn name_of(types: Types) -> &'static str {
    match types {
        Types::F32 => "F32",
        Types::Bf16 => "BF16",
        Types::F64 => "F64",
    }
}

/// Returns the PTX of a source, which is kept for the next run.
pub fn compile(source: &Path, target: Target) -> Result<String, String> {
    let nvcc = nvcc::find().ok_or("nvcc was not found")?;
    let usual = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("ptx");
    let cache = std::env::var_os(CACHE).map_or_else(usual, PathBuf::from);
    Compiler { nvcc, cache }.ptx(source, &kernels(), target).map_err(|e| e.to_string())
}

fn text(file: &str, target: Target) -> Result<String, String> {
    compile(&kernels().join(file), target)
}

/// Returns the architectures whose PTX is executed: the oldest one, and those with another text.
pub fn architectures(file: &'static str, types: Types) -> Result<Vec<&'static str>, String> {
    static DISTINCT: LazyLock<Mutex<Architectures>> = LazyLock::new(Mutex::default);
    let types = name_of(types);
    if let Some(known) = DISTINCT.lock().unwrap().get(&(file, types)) {
        return Ok(known.clone());
    }
    let code = |arch| -> Result<String, String> {
        let text = text(file, Target { types, arch, contract: true })?;
        Ok(text.lines().filter(|line| !line.starts_with(".target")).collect())
    };
    let first = code(ARCHITECTURES[0])?;
    let mut distinct = vec![ARCHITECTURES[0]];
    for &arch in &ARCHITECTURES[1..] {
        if code(arch)? != first {
            distinct.push(arch);
        }
    }
    DISTINCT.lock().unwrap().insert((file, types), distinct.clone());
    Ok(distinct)
}

/// Returns a kernel, which is compiled and decoded at first use.
pub fn program(kernel: &'static Kernel, target: Target) -> Result<Arc<Program>, String> {
    let entry = {
        let mut programs = PROGRAMS.lock().unwrap();
        programs.entry((kernel.file, target)).or_default().clone()
    };
    let decoded = entry.get_or_init(|| {
        let text = text(kernel.file, target)?;
        let programs = ptx::decode(&text).map_err(|e| format!("{}: {e}", kernel.file))?;
        Ok(programs.into_iter().map(Arc::new).collect())
    });
    let symbol = format!("{}_{}", kernel.name, target.types.to_lowercase());
    let programs = decoded.as_ref().map_err(Clone::clone)?;
    let found = programs.iter().find(|program| *program.name == *symbol);
    found.cloned().ok_or_else(|| format!("{} contains no kernel `{symbol}`", kernel.file))
}

/// Returns the serial build that adds in the order of a block's threads.
pub fn reference(types: Types) -> Library {
    let built = emulator::built(name_of(types), Build::Ordered);
    Library::open(&built, Build::Ordered).unwrap()
}
