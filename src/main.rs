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
    let mut text = String::from("error: ");
    for (depth, cause) in error.chain().enumerate() {
        // A library error's own text names its cause already.
        let cause = cause.to_string();
        if depth > 0 && !text.contains(&cause) {
            text.push_str("\n  because: ");
        } else if depth > 0 {
            continue;
        }
        text.push_str(&cause.replace('\n', "\n  "));
    }
    text
}
