//! What goes to standard output and standard error.

use std::io::{ErrorKind, Write};

/// A line or block for the user, on standard error. Nobody listening is no failure.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A result, on standard output. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// An error and its causes as one block on standard error, each line beyond the first indented.
pub fn tell_error(error: &anyhow::Error) {
    let mut text = format!("error: {}", error.to_string().replace('\n', "\n  "));
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Most of the library's errors name their cause themselves.
        if !text.contains(&cause) {
            text.push_str(&format!("\n  because: {}", cause.replace('\n', "\n  ")));
        }
    }
    tell(&text);
}
