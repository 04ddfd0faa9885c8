//! Builds kernel files into a shared library, either for the block emulator or as its reference.
//! The build script includes this file too.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a library of kernels is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The block emulator: the threads of a block are coroutines, and every access is reported.
    Emulated,
    /// The reference: one thread does a block's work and adds in the order of the block's threads.
    Ordered,
}

impl Build {
    /// Returns the name, which is also the suffix of the kernels' symbols.
    pub fn name(self) -> &'static str {
        match self {
            Build::Emulated => "emulator",
            Build::Ordered => "ordered",
        }
    }
}

/// Same arithmetic as the serial CPU build. At -O1, the compiler neither merges adjacent accesses
/// nor replaces a loop by a library call that is not checked.
const FLAGS: [&str; 8] = [
    "-std=c++17",
    "-O1",
    "-g",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wno-unknown-pragmas",
    "-Werror=return-type",
];

/// Compiles one kernel file; `types` is F32, BF16 or F64, and `include` the folder of its headers.
///
/// # Errors
/// Returns the compiler's output if it fails.
pub fn object(
    source: &Path,
    include: &Path,
    types: &str,
    build: Build,
    out: &Path,
) -> Result<(), String> {
    let mut flags: Vec<String> = FLAGS.map(Into::into).to_vec();
    // `fma_of` is one instruction, as on the GPU; nothing else is fused.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        flags.push("-mfma".into());
    }
    flags.push(format!("-DUDASS_{types}"));
    flags.push(format!("-DUDASS_SUFFIX={}", build.name()));
    match build {
        Build::Emulated => {
            flags.extend(["-DUDASS_EMULATED", "-fsanitize=thread,bounds"].map(Into::into))
        }
        Build::Ordered => flags.push("-DUDASS_ORDERED".into()),
    };
    let mut command = compiler();
    command.args(&flags).arg("-I").arg(include);
    command.args(["-x", "c++", "-c"]).arg(source).arg("-o").arg(out);
    run(command, source)
}

/// Links objects into a library; for the block emulator, they include that of [`runtime`].
///
/// # Errors
/// Returns the linker's output if it fails.
pub fn link(objects: &[PathBuf], out: &Path) -> Result<(), String> {
    let mut command = compiler();
    command.arg("-shared").args(objects).arg("-o").arg(out);
    run(command, out)
}

/// Compiles the object that implements the kernels' hooks.
///
/// # Errors
/// Returns the compiler's output if it fails.
pub fn runtime(source: &Path, out: &Path) -> Result<(), String> {
    let mut command = compiler();
    command.args(FLAGS).arg("-c").arg(source).arg("-o").arg(out);
    run(command, source)
}

fn compiler() -> Command {
    Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
}

fn run(mut command: Command, what: &Path) -> Result<(), String> {
    let output = command.output().map_err(|e| {
        format!("{}: {e} (a C++17 compiler is needed)", command.get_program().display())
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}:\n{}", what.display(), String::from_utf8_lossy(&output.stderr)))
}
