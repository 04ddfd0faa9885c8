//! Names of files, tensors and keys with escape codes or bytes that are not UTF-8, and messages that
//! have to name what is wrong.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use safetensors::Dtype;
use udass_raw::Error;
use udass_raw::checkpoint::writer::{Entry, write};
use udass_raw::config::Config;
use udass_raw::data::layouts::{Split, find};

use crate::{file, folder, refused, run, stderr, text};

/// What a terminal would take for commands.
const HOSTILE: &str = "a\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\r";

fn clean(what: &str, shown: &[u8]) {
    let shown = std::str::from_utf8(shown).unwrap();
    let found = shown.chars().find(|&c| c.is_control() && c != '\n' && c != '\t');
    assert_eq!(found, None, "{what}: {shown:?}");
}

#[test]
fn escape_codes_reach_no_terminal() {
    let folder = folder();
    let weights = folder.path().join(format!("{HOSTILE}.safetensors"));
    let (name, dtype) = (HOSTILE.to_owned(), Dtype::F32);
    let entry = Entry { name, dtype, shape: vec![1], bytes: Box::new(|| Ok(vec![0; 4])) };
    write(&weights, vec![entry], Default::default()).unwrap();
    file(folder.path(), "keys.toml", "base = \"toy_vit\"\n\"\\u001b[31m\" = 1\n".as_bytes());
    fs::create_dir(folder.path().join(HOSTILE)).unwrap();
    for words in [
        &["weights", "inspect", text(&weights)][..],
        &["weights", "verify", text(&weights)],
        &["weights", "inspect", HOSTILE],
        &["weights", "inspect", "missing\u{1b}[31m.pth"],
        &["eval", "toy_vit", "--checkpoint", text(&weights)],
        &["report", HOSTILE],
        &["config", "show", "keys.toml"],
        &["config", "show", "toy_vit", "--set", "data.batch=\u{1b}[31m"],
        &["config", "show", "toy_vit", "--set", "run.out=\u{1b}[31m\u{9b}"],
        &["predict", HOSTILE, "--checkpoint", text(&weights), "--out", "out"],
    ] {
        let output = run(folder.path(), words);
        clean(&format!("{words:?}"), &output.stdout);
        clean(&format!("{words:?}"), &output.stderr);
    }
    let output = run(folder.path(), &["weights", "inspect", text(&weights)]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("a\\u001b[31mred"), "{shown}\n{}", stderr(&output));
    // The library's errors are shown by others.
    let errors = [
        Error::config(HOSTILE),
        Error::data(Path::new(&format!("{HOSTILE}\nerror: x")), HOSTILE),
        Error::weights(HOSTILE, HOSTILE),
        Error::io(HOSTILE, "read", std::io::Error::other("no")),
        Error::Training(HOSTILE.into()),
    ];
    for error in errors {
        clean("error", error.to_string().as_bytes());
        assert!(!error.to_string().contains("\nerror: x"), "{error}");
    }
}

#[test]
fn what_escaping_writes_is_still_toml() {
    let sets = ["run.out=a\u{1b}[31m\u{9b}\u{202e}".to_string()];
    let config = Config::load("toy_vit", &sets).unwrap();
    let shown = udass_raw::printable(&config.to_toml().unwrap()).into_owned();
    clean("TOML", shown.as_bytes());
    assert_eq!(Config::from_toml(&shown, "shown").unwrap().run.out, config.run.out);
}

#[test]
fn paths_that_are_not_utf_8_are_taken_as_they_are_or_refused() {
    let folder = folder();
    let odd = OsStr::from_bytes(b"odd\xff");
    let refused_with = |args: &[&OsStr], problem: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
        command.current_dir(folder.path()).stdin(Stdio::null());
        let output = command.args(args).output().unwrap();
        assert!(!output.status.success());
        assert!(stderr(&output).contains(problem), "{}", stderr(&output));
    };
    let word = OsStr::new;
    let not_utf_8 = "not UTF-8";
    refused_with(&[word("train"), word("toy_vit"), word("--out"), odd], not_utf_8);
    refused_with(&[word("prepare"), word("files"), odd], not_utf_8);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.is_empty(), "{names:?}");

    let images = folder.path().join("gta/images");
    fs::create_dir_all(&images).unwrap();
    fs::write(images.join("1.png"), b"").unwrap();
    let found = || find("gta").unwrap().images(&folder.path().join("gta"), Split::Train);
    fs::write(images.join(OsStr::from_bytes(b"notes\xff.txt")), b"").unwrap();
    assert_eq!(found().unwrap().len(), 1, "other files may have any name");
    fs::write(images.join(OsStr::from_bytes(b"2\xff.png")), b"").unwrap();
    assert!(found().unwrap_err().to_string().contains(not_utf_8));

    // Where no text is made of it, a file has the name that was given.
    let [from, to] = [folder.path().join("a.safetensors"), folder.path().join(odd)];
    let to = to.with_extension("pth");
    let entry = Entry {
        name: "a".into(),
        dtype: Dtype::F32,
        shape: vec![1],
        bytes: Box::new(|| Ok(vec![0; 4])),
    };
    write(&from, vec![entry], Default::default()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
    command.args([word("weights"), word("convert"), from.as_os_str(), to.as_os_str()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(to.is_file());
}

#[test]
fn messages_name_the_file_and_the_key() {
    for (set, key) in [
        ("seed=9223372036854775808", "seed"),
        ("seed=18446744073709551615", "seed"),
        ("run.max_iters=9223372036854775808", "run.max_iters"),
        ("quadmix.min_pixels=0xffffffffffffffff", "quadmix.min_pixels"),
    ] {
        let told = Config::load("gta_vit", &[set.into()]).unwrap_err().to_string();
        assert!(
            told.contains(&format!("--set {set}: `{key}`: expected at most 9223372036854775807")),
            "{told}"
        );
    }
    Config::load("gta_vit", &["seed=9223372036854775807".into()]).unwrap();

    let folder = folder();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
    let output = command.args(["config", "list"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write to standard output"), "{}", stderr(&output));

    // A configuration that a checkpoint holds.
    let weights = folder.path().join("kept.safetensors");
    let entry = Entry {
        name: "student.a".into(),
        dtype: Dtype::F32,
        shape: vec![1],
        bytes: Box::new(|| Ok(vec![0; 4])),
    };
    let strings = [("config".into(), "seed = = 1".into())].into();
    write(&weights, vec![entry], strings).unwrap();
    refused(folder.path(), &["eval", "--checkpoint", text(&weights)], &["kept.safetensors"]);
}
