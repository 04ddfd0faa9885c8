//! `udass-raw generate`, for packagers: hidden, because users get its files with the program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Command;
use clap_complete::{Shell, generate};
use udass_raw::file::atomic::write_atomic;

/// The program's name in completions and manual pages.
const NAME: &str = "udass-raw";
/// The shells and where completions are kept in a package.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "completions/udass-raw.bash"),
    (Shell::Zsh, "completions/_udass-raw"),
    (Shell::Fish, "completions/udass-raw.fish"),
];

/// Write shell completions and manual pages.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder for `completions/` and `man/`.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the files of the program whose arguments are `command`.
pub fn run(args: &Args, mut command: Command) -> anyhow::Result<ExitCode> {
    for (shell, name) in SHELLS {
        let mut text = Vec::new();
        generate(shell, &mut command, NAME, &mut text);
        write(&args.folder.join(name), &text)?;
    }
    // `udass-raw help train` and `man udass-raw-train` tell the same.
    let pages = args.folder.join("man");
    std::fs::create_dir_all(&pages).with_context(|| pages.display().to_string())?;
    clap_mangen::generate_to(command, &pages).with_context(|| pages.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(write_atomic(path, |file| file.write_all(text))?)
}
