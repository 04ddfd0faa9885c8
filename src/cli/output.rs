//! Writes to standard output and standard error.

use std::io::{ErrorKind, Write};

/// Writes a message for the user to standard error and ignores failures.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a result to standard output. A closed pipe (`| head`) is not an error.
pub fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
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
