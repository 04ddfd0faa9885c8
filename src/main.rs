//! The `udass-raw` command.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // For invalid arguments, clap prints a message and exits with code 2.
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            cli::tell_error(&e);
            ExitCode::FAILURE
        }
    }
}
