//! Shared libraries built during tests, in place of ones that a machine may lack.

use std::path::Path;
use std::process::Command;

/// Builds `lib{name}.so` in a folder from C source.
pub fn add_library(folder: &Path, name: &str, source: &str) {
    let (file, code) = (folder.join(format!("lib{name}.so")), folder.join("a.c"));
    std::fs::write(&code, source).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&file).arg(&code).output();
    let built = built.unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}
