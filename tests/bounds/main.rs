//! Tests that input of any size and shape costs no more than is stated: depth, pixels, bytes, files
//! that are no files, and values of a configuration.

#[path = "../support/jpeg.rs"]
mod jpeg;
mod memory;
mod names;
mod opening;
mod pickles;
mod pictures;
mod values;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs the program, which must end within a minute.
fn run(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
    command.current_dir(folder).args(words).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (process, (sender, receiver)) = (child.id(), channel());
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| {
        // SAFETY: a signal to the child, which has not been waited for.
        unsafe { libc::kill(process as i32, libc::SIGKILL) };
        panic!("{words:?} does not end");
    })
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the program, which must refuse with a message that has these parts, without a crash.
#[track_caller]
fn refused(folder: &Path, words: &[&str], parts: &[&str]) {
    let output = run(folder, words);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {:?}\n{said}", output.status);
    for part in parts {
        assert!(said.contains(part), "{words:?}: {part:?} in: {said}");
    }
}

/// Writes a file and returns its path.
fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}
