//! Writes to standard output and standard error.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::OnceLock;

use udass_raw::file::atomic::write_atomic;
use udass_raw::printable;

/// How much is told beside results and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Nothing.
    Quiet,
    /// Messages and progress.
    Usual,
    /// Also where things come from, and what they took.
    Verbose,
}

static VERBOSITY: OnceLock<Verbosity> = OnceLock::new();

/// Sets how much is told from now on; only the first call counts.
pub fn set_verbosity(verbosity: Verbosity) {
    let _ = VERBOSITY.set(verbosity);
}

fn tells(verbosity: Verbosity) -> bool {
    *VERBOSITY.get().unwrap_or(&Verbosity::Usual) >= verbosity
}

/// Returns whether messages and progress are not wanted.
pub fn is_quiet() -> bool {
    !tells(Verbosity::Usual)
}

/// Writes a message for the user to standard error, unless the program is to be quiet, and ignores
/// failures. Whatever is written by this file is free of characters that would control a terminal.
pub fn tell(text: &str) {
    if tells(Verbosity::Usual) {
        complain(text);
    }
}

/// Writes a message like [`tell`] if the program is to be verbose.
pub fn detail(text: &str) {
    if tells(Verbosity::Verbose) {
        complain(text);
    }
}

/// Writes what went wrong to standard error, and ignores failures.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

/// Writes a result to standard output. A closed pipe (`| head`) is not an error.
pub fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", printable(text)) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("cannot write to standard output: {e}"))
        }
        _ => Ok(()),
    }
}

/// Returns whether a path stands for standard output.
pub fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Writes a file atomically, or to standard output if the path is `-`.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    match is_standard(path) {
        true => print(text.trim_end_matches('\n')),
        false => Ok(write_atomic(path, |file| file.write_all(printable(text).as_bytes()))?),
    }
}

/// Writes an error and its causes to standard error as one block, with all lines after the first
/// indented.
pub fn tell_error(error: &anyhow::Error) {
    let mut text = format!("error: {}", error.to_string().replace('\n', "\n  "));
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Most of the library's errors already include their cause.
        if !text.contains(&cause) {
            text.push_str(&format!("\n  because: {}", cause.replace('\n', "\n  ")));
        }
    }
    complain(&text);
}
