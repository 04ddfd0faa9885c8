//! `udass-raw train --processes`: the same command in several processes of this machine.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use udass_raw::device::group::{Launched, Launcher};

const FLAG: &str = "--processes";

/// Replaces this process by `mpiexec`, which starts as many with the same arguments.
///
/// # Errors
/// There is no `mpiexec`, or something else started this process as one of several.
pub fn start(processes: usize, launched: &Launched) -> anyhow::Result<std::convert::Infallible> {
    if launched.by != Launcher::Alone {
        bail!("{FLAG}: this is one of several processes already, which a launcher started");
    }
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new("mpiexec");
    command.arg("-n").arg(processes.to_string()).arg(program);
    command.args(without_flag(std::env::args_os().skip(1)));
    let error = command.exec();
    bail!(
        "{FLAG}: cannot start mpiexec, through which processes train together on the host device \
         ({error}): install MPICH or Open MPI"
    )
}

/// Returns the arguments without the flag and its value.
fn without_flag(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == FLAG {
            arguments.next();
        } else if !text.starts_with(&format!("{FLAG}=")) {
            kept.push(argument);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_get_the_same_arguments_but_one() {
        for flag in [&["--processes", "4"][..], &["--processes=4"]] {
            let words = [&["train", "toy_vit"][..], flag, &["--out", "runs/a"]].concat();
            let left = without_flag(words.into_iter().map(OsString::from));
            assert_eq!(left, ["train", "toy_vit", "--out", "runs/a"]);
        }
    }
}
