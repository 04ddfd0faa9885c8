//! Writes to standard output and standard error.

use std::io::{ErrorKind, Write};
use std::path::Path;

use udass_raw::file::atomic::write_atomic;
use udass_raw::printable;

/// Writes a message for the user to standard error and ignores failures. Whatever is written by this
/// file is free of characters that would control a terminal.
pub fn tell(text: &str) {
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
    tell(&text);
}
