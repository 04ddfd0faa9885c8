//! Paths that lead to pipes, sockets and devices, and folders that link to themselves.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use udass_raw::checkpoint::convert::convert;
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::checkpoint::writer::write_numbers;
use udass_raw::config::Config;
use udass_raw::data::decode;
use udass_raw::data::labels::{LabelFile, TRAIN_IDS};
use udass_raw::data::layouts::{Split, find};
use udass_raw::run::train::log::{self, Log};

use crate::{file, folder, refused, text};

fn pipe(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is a string with an end.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

/// Runs what might never return.
#[track_caller]
fn ends<R: Send + 'static>(what: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(what()));
    receiver.recv_timeout(Duration::from_secs(20)).expect("it never returns")
}

/// Makes a pipe, a socket and links to two devices with this ending, and returns their paths with
/// what they are.
fn no_files(folder: &Path, ending: &str) -> Vec<(PathBuf, &'static str)> {
    let at = |name: &str| folder.join(format!("{name}{ending}"));
    pipe(&at("pipe"));
    // The name stays when the socket is closed.
    UnixListener::bind(at("socket")).unwrap();
    symlink("/dev/zero", at("endless")).unwrap();
    symlink("/dev/null", at("empty")).unwrap();
    symlink(at("pipe"), at("link")).unwrap();
    vec![
        (at("pipe"), "a named pipe"),
        (at("link"), "a named pipe"),
        (at("socket"), "a socket"),
        (at("endless"), "a device"),
        (at("empty"), "a device"),
    ]
}

#[test]
fn what_is_no_file_is_refused_by_every_reader() {
    type Reader = fn(&Path) -> udass_raw::Result<()>;
    let readers: [(&str, Reader); 7] = [
        (".png", |path| decode::load_rgb(path).map(drop)),
        (".jpg", |path| decode::size(path).map(drop)),
        (".label.png", |path| {
            LabelFile { path: path.into(), ids: TRAIN_IDS.clone() }.load().map(drop)
        }),
        (".pth", |path| TensorFile::open(path).map(drop)),
        (".toml", |path| Config::load(path.to_str().unwrap(), &[]).map(drop)),
        (".jsonl", |path| log::read(path).map(drop)),
        (".log", |path| {
            let config = Config::load("toy_vit", &[])?;
            let made = Log::create(path, 0, "run", &config).map(drop);
            let resumed = Log::resume(path, 0, "run", &config).map(drop);
            made.and(Ok(())).or_else(|e| resumed.and(Err(e)))
        }),
    ];
    for (ending, reader) in readers {
        let folder = folder();
        for (path, what) in no_files(folder.path(), ending) {
            let shown = path.display().to_string();
            let told = ends(move || reader(&path).unwrap_err().to_string());
            assert!(told.contains(&shown) && told.contains(what), "{told}");
        }
    }
}

#[test]
fn what_is_no_file_is_refused_by_every_command() {
    let folder = folder();
    let at = folder.path();
    for (path, what) in no_files(at, "") {
        let (name, parts) = (text(&path), [text(&path), what]);
        let config = file(at, "base.toml", format!("base = \"{name}.toml\"\n").as_bytes());
        symlink(&path, format!("{name}.toml")).unwrap();
        refused(at, &["weights", "inspect", name], &parts);
        refused(at, &["weights", "verify", name], &parts);
        refused(at, &["weights", "convert", name, "out.safetensors"], &parts);
        refused(at, &["eval", "toy_vit", "--checkpoint", name], &parts);
        refused(at, &["report", name], &parts);
        refused(at, &["config", "show", &format!("{name}.toml")], &[name]);
        refused(at, &["config", "show", text(&config)], &[name]);
        let run = at.join("run");
        fs::create_dir_all(&run).unwrap();
        let _ = fs::remove_file(run.join("log.jsonl"));
        symlink(&path, run.join("log.jsonl")).unwrap();
        refused(at, &["report", "run"], &["log.jsonl", what]);
    }
}

#[test]
fn listings_end_where_links_lead_back() {
    let folder = folder();
    let images = folder.path().join("images");
    fs::create_dir_all(images.join("train/v1")).unwrap();
    for link in ["a", "b", "train/c", "train/d"] {
        symlink(&images, images.join(link)).unwrap();
    }
    // A link to a folder beside it is followed, but its files are those of the folder.
    symlink("v1", images.join("train/newest")).unwrap();
    for name in ["1.png", "train/2.png", "train/v1/3.png"] {
        fs::write(images.join(name), b"").unwrap();
    }
    let names = |paths: Vec<PathBuf>| -> Vec<String> {
        let below = paths.iter().map(|path| path.strip_prefix(&images).unwrap().display());
        below.map(|name| name.to_string()).collect()
    };
    let glob = |pattern: &str| {
        let pattern = images.join(pattern);
        names(ends(move || decode::listed(&[pattern])).unwrap())
    };
    let all = ["1.png", "train/2.png", "train/v1/3.png"];
    assert_eq!(glob("**/*.png"), all);
    assert_eq!(glob("*/*.png"), [all[1]]);
    assert_eq!(glob("train//v1/./*.png"), [all[2]]);
    assert_eq!(glob("train/newest/*.png"), ["train/newest/3.png"]);
    assert_eq!(glob("*/newest/?.png"), ["train/newest/3.png"]);
    assert_eq!(glob(""), [all[0]]);

    let root = folder.path().join("gta");
    fs::create_dir_all(&root).unwrap();
    symlink(&images, root.join("images")).unwrap();
    let found = ends(move || find("gta").unwrap().images(&root, Split::Train));
    assert_eq!(found.unwrap().len(), 3);
}

/// A reader of a memory map would be killed.
#[test]
fn a_file_that_is_shortened_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let shape = vec![3 << 18];
    write_numbers(&path, "a", shape.clone(), vec![1.0; 3 << 18]).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let torch = folder.path().join("weights.pth");
    convert(&file, &torch, None).unwrap();
    for path in [path, torch] {
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.numbers("a").unwrap().len(), shape[0]);
        let shorter = fs::OpenOptions::new().write(true).open(&path).unwrap();
        shorter.set_len(1 << 20).unwrap();
        let told = file.numbers("a").unwrap_err().to_string();
        let expected = format!("{}: cannot read: it has become shorter", path.display());
        assert!(told.starts_with(&expected), "{told}");
        assert!(file.digest().is_err() && file.sha256().is_err());
        let converted = folder.path().join("converted.safetensors");
        assert!(convert(&file, &converted, None).is_err() && !converted.exists());
    }
}
