//! Files that are written where somebody has put a link, or removed what is being written.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use udass_raw::config::Config;
use udass_raw::file::atomic::{link, write_atomic};
use udass_raw::run::train::log::{Iteration, Log, read};

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
    let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
    let mut log = Log::create(&path, 0, "run", &config).unwrap();
    log.iteration(&line).unwrap();
    assert_eq!(log.take_note(), None);
    // It begins anew with the run's configuration, and says so once.
    fs::rename(&path, folder.path().join("away")).unwrap();
    log.iteration(&line).unwrap();
    let note = log.take_note().unwrap();
    assert!(note.contains("log.jsonl: was removed under the run"), "{note}");
    assert_eq!(lines(&path), 2);
    assert_eq!(read(&path).unwrap()[0]["event"], "start");
    log.iteration(&line).unwrap();
    assert_eq!((log.take_note(), lines(&path)), (None, 3));
    // Another file in its place is somebody else's.
    fs::rename(folder.path().join("away"), &path).unwrap();
    let told = log.iteration(&line).unwrap_err().to_string();
    assert!(told.contains("log.jsonl: was moved or replaced"), "{told}");
    assert_eq!(lines(&path), 2);

    // So is another folder of the same name.
    let run = folder.path().join("run");
    let mut log = Log::create(run.join("log.jsonl"), 0, "run", &config).unwrap();
    fs::rename(&run, folder.path().join("renamed")).unwrap();
    for _ in 0..2 {
        let told = log.iteration(&line).unwrap_err().to_string();
        assert!(told.contains("was moved or replaced") && told.contains("--resume"), "{told}");
        fs::create_dir_all(&run).unwrap();
    }
    assert!(!run.join("log.jsonl").exists());
}
