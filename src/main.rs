//! The `udass-raw` command.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Wrong usage ends here, with clap's message and exit code 2.
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            cli::tell_error(&e);
            ExitCode::FAILURE
        }
    }
}
