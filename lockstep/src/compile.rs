//! Builds kernel files into a shared library: in lockstep, or as what lockstep is compared with.
//! Also a part of the build script.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a library is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Threads of a block are coroutines, every access is reported.
    Lockstep,
    /// One thread does a block's work, and adds in the order of a block's threads.
    Ordered,
}

impl Flavour {
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Lockstep => "lockstep",
            Flavour::Ordered => "ordered",
        }
    }
}

/// As the host device's kernels are compiled: what a kernel says is what is computed. At -O1 an
/// access is not merged with its neighbours, nor a loop turned into a call that is not watched.
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

/// One object from a kernel file; `types` is F32, BF16 or F64, `include` the folder of its headers.
pub fn object(
    source: &Path,
    include: &Path,
    types: &str,
    flavour: Flavour,
    out: &Path,
) -> Result<(), String> {
    let mut flags: Vec<String> = FLAGS.map(Into::into).to_vec();
    flags.push(format!("-DUDASS_{types}"));
    flags.push(format!("-DUDASS_SUFFIX={}", flavour.name()));
    match flavour {
        Flavour::Lockstep => {
            flags.extend(["-DUDASS_LOCKSTEP", "-fsanitize=thread,bounds"].map(Into::into))
        }
        Flavour::Ordered => flags.push("-DUDASS_ORDERED".into()),
    };
    let mut command = compiler();
    command.args(&flags).arg("-I").arg(include);
    command.args(["-x", "c++", "-c"]).arg(source).arg("-o").arg(out);
    run(command, source)
}

/// A library of such objects; in lockstep one of them is that of [`runtime`].
pub fn link(objects: &[PathBuf], out: &Path) -> Result<(), String> {
    let mut command = compiler();
    command.arg("-shared").args(objects).arg("-o").arg(out);
    run(command, out)
}

/// The object that answers the kernels' hooks.
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
