//! Fuzz targets: every reader of external files, on arbitrary bytes. Shared by `fuzz/` and by the
//! regression test for inputs that the fuzzer found.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use udass_raw::checkpoint::identity::identify;
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::config::Config;
use udass_raw::data::labels::{CITYSCAPES_IDS, LabelFile, SYNTHIA_IDS, TRAIN_IDS};
use udass_raw::run::train::log::{Log, read};

#[path = "targets/checkpoint.rs"]
mod checkpoint;
#[path = "targets/events.rs"]
mod events;
#[path = "targets/image.rs"]
mod image;
#[path = "targets/run.rs"]
mod run;

pub use checkpoint::checkpoint;
pub use events::events;
pub use image::image;
pub use run::run;

type Target = fn(&[u8]);

pub const ALL: [(&str, Target); 9] = [
    ("pth", pth),
    ("safetensors", safetensors),
    ("label", label),
    ("config", config),
    ("log", log),
    ("image", image),
    ("checkpoint", checkpoint),
    ("run", run),
    ("events", events),
];

/// Writes the input to a file that no other thread uses, since the readers take paths.
fn file(bytes: &[u8]) -> PathBuf {
    let path = place("");
    std::fs::write(&path, bytes).expect("a place for the input");
    path
}

/// Returns a path with this ending that no other thread uses.
fn place(ending: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let thread = std::thread::current().id();
    folder.join(format!("udass-raw-fuzz-{}-{thread:?}{ending}", std::process::id()))
}

/// A configuration of a run in the small.
fn preset() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| Config::load("toy_vit", &[]).expect("a preset"))
}

fn tensors(path: &Path) {
    let Ok(file) = TensorFile::open(path) else { return };
    for info in file.tensors() {
        assert_eq!(file.data(info).unwrap().len(), info.elements() * info.dtype.bitsize() / 8);
        let _ = file.numbers(&info.name);
    }
    let _ = (identify(&file), file.tree(), file.digest().unwrap());
}

/// PyTorch's files, in both formats.
pub fn pth(bytes: &[u8]) {
    tensors(&file(bytes));
}

pub fn safetensors(bytes: &[u8]) {
    tensors(&file(bytes));
}

/// Label maps in PNG files, and their conversion to train ids.
pub fn label(bytes: &[u8]) {
    let path = file(bytes);
    for ids in [&TRAIN_IDS, &CITYSCAPES_IDS, &SYNTHIA_IDS] {
        if let Ok(plane) = (LabelFile { path: path.clone(), ids: Arc::clone(ids) }).load() {
            assert_eq!(plane.data.len(), plane.size.width * plane.size.height);
        }
    }
}

/// Configurations: what parses must survive a round trip through text.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = Config::from_toml(text, "fuzz") else { return };
    let again = config.to_toml().expect("what was text is text");
    assert_eq!(Config::from_toml(&again, "again").expect("what was written is read"), config);
    assert!(config.differences(&again).expect("TOML").is_empty());
}

/// Logs of runs: reads them and resumes.
pub fn log(bytes: &[u8]) {
    let path = file(bytes);
    let Ok(before) = read(&path) else { return };
    drop(
        Log::resume(&path, 3, "run", preset()).expect("a log that can be read can be gone on with"),
    );
    // The remaining lines are older, and the new one is last.
    let after = read(&path).expect("whole lines");
    assert!(after.len() <= before.len() + 1);
    assert_eq!(after.last().expect("one line")["event"], "start");
}
