//! Files that are written where somebody has put a link, or removed what is being written.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use udass_raw::config::Config;
use udass_raw::file::atomic::{link, write_atomic};
use udass_raw::run::train::log::{Iteration, Log};

use crate::folder;

#[test]
fn temporary_files_follow_no_link() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let precious = at("precious");
    fs::write(&precious, "content").unwrap();
    for (name, to) in [(".state.bin.tmp", &precious), (".other.bin.tmp", &at("nothing"))] {
        symlink(to, at(name)).unwrap();
    }
    write_atomic(at("state.bin"), |file| file.write_all(b"new")).unwrap();
    assert_eq!(fs::read(at("state.bin")).unwrap(), b"new");
    link(&at("state.bin"), &at("other.bin")).unwrap();
    assert_eq!(fs::read(at("other.bin")).unwrap(), b"new");
    assert_eq!(fs::read(&precious).unwrap(), b"content");
    assert!(!at("nothing").exists());
    for name in ["state.bin", "other.bin"] {
        assert!(at(name).symlink_metadata().unwrap().is_file(), "{name}");
    }
    // A folder in the way is named and stays.
    fs::create_dir(at(".state.bin.tmp")).unwrap();
    let told = write_atomic(at("state.bin"), |file| file.write_all(b"newer")).unwrap_err();
    assert!(told.to_string().contains("state.bin: cannot write"), "{told}");
    assert_eq!(fs::read(at("state.bin")).unwrap(), b"new");
}

#[test]
fn a_log_that_is_removed_or_replaced_under_a_run_is_noticed() {
    let config = Config::load("toy_vit", &[]).unwrap();
    let folder = folder();
    let path = folder.path().join("log.jsonl");
    let line = Iteration::default();
    let mut log = Log::create(&path, 0, "run", &config).unwrap();
    log.iteration(&line).unwrap();
    // Found under the same path, though moved and back.
    fs::rename(&path, folder.path().join("away")).unwrap();
    let told = log.iteration(&line).unwrap_err().to_string();
    assert!(
        told.contains("log.jsonl: was removed or moved") && told.contains("--resume"),
        "{told}"
    );
    fs::write(&path, "").unwrap();
    let told = log.iteration(&line).unwrap_err().to_string();
    assert!(told.contains("log.jsonl: was replaced"), "{told}");
    fs::rename(folder.path().join("away"), &path).unwrap();
    log.iteration(&line).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}
