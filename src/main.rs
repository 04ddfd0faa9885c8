//! The `udass-raw` command.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Wrong usage ends here, with clap's message and exit code 2.
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            cli::tell(&block(&e));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes as one block, each line beyond the first indented.
fn block(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}", error.to_string().replace('\n', "\n  "));
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Most of the library's errors name their cause themselves.
        if !text.contains(&cause) {
            text.push_str(&format!("\n  because: {}", cause.replace('\n', "\n  ")));
        }
    }
    text
}
