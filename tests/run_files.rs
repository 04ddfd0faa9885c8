//! Tests the files of a run: the log, atomic replacement, images.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use udass_raw::config::{Config, DatasetConfig};
use udass_raw::data::classes::Classes;
use udass_raw::file::atomic::write_atomic;
use udass_raw::run::eval::images::{
    ImageView, label_ids_name, overlay, save_comparison, save_label_ids, save_overlay,
};
use udass_raw::run::eval::metrics::Confusion;
use udass_raw::run::eval::report::{Report, Subject, Validated};
use udass_raw::run::train::log::{Iteration, Log, read};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

// ---- atomic files

#[test]
fn a_file_is_replaced_whole_and_folders_are_made() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b/state.bin");
    write_atomic(&path, |file| file.write_all(b"first, and longer")).unwrap();
    write_atomic(&path, |file| file.write_all(b"second")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(names(path.parent().unwrap()), ["state.bin"], "nothing temporary stays");
}

#[test]
fn a_failure_keeps_the_previous_file_and_names_the_path() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.bin");
    write_atomic(&path, |file| file.write_all(b"good")).unwrap();
    let error = write_atomic(&path, |file| {
        file.write_all(&[0; 3 << 20])?;
        Err(io::Error::other("the writer gave up"))
    });
    let told = error.unwrap_err().to_string();
    assert_eq!(told, format!("{}: cannot write: the writer gave up", path.display()));
    assert_eq!(fs::read(&path).unwrap(), b"good");
    assert_eq!(names(folder.path()), ["state.bin"], "the torn file is gone");
}

#[test]
fn a_full_disk_is_called_that() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.bin");
    // The kernel's own error for a full disk.
    let full = || fs::OpenOptions::new().write(true).open("/dev/full")?.write_all(b"x");
    let told = write_atomic(&path, |_| full()).unwrap_err().to_string();
    assert!(told.contains("state.bin: cannot write: the disk is full ("), "{told}");
    assert!(!told.contains("previous"), "there is none: {told}");
    write_atomic(&path, |file| file.write_all(b"good")).unwrap();
    let told = write_atomic(&path, |_| full()).unwrap_err().to_string();
    assert!(told.contains("the disk is full; the previous file is unchanged"), "{told}");
    assert_eq!(fs::read(&path).unwrap(), b"good");
}

#[test]
fn a_leftover_of_a_killed_process_does_no_harm() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state.bin");
    fs::write(folder.path().join(".state.bin.tmp"), b"torn, and longer than what follows").unwrap();
    write_atomic(&path, |file| file.write_all(b"good")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"good");
    assert_eq!(names(folder.path()), ["state.bin"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let path = folder.path().join("file/state.bin");
    let told = write_atomic(&path, |file| file.write_all(b"x")).unwrap_err().to_string();
    assert!(told.starts_with(&format!("{}: cannot write: ", path.display())), "{told}");
    assert!(write_atomic("/", |_| Ok(())).unwrap_err().to_string().contains("has no file name"));
}

// ---- log

fn config() -> Config {
    Config::load("toy_vit", &[]).unwrap()
}

fn iteration(iteration: u64) -> Iteration {
    Iteration {
        iteration,
        losses: vec![("decode.loss_seg".into(), 1.5), ("mix.decode.loss_seg".into(), 0.25)],
        lr: 6e-5,
        images_per_second: 2.5,
        seconds: 1.6,
        pseudo_label_weight: Some(0.75),
        ..Iteration::default()
    }
}

fn evaluation() -> Report {
    let mut confusion = Confusion::new(19);
    confusion.add(&[0, 1], &[0, 0]).unwrap();
    Report {
        subject: Subject { config: "toy_vit".into(), ..Subject::default() },
        configuration: Value::Null,
        confusion,
        classes: Classes::cityscapes(),
        images: 1,
        per_image: Vec::new(),
        data: Validated { sizes: vec![[2, 1]], folders: vec!["ulm".into()] },
        seconds: 1.0,
    }
}

/// Returns `event iteration` for every line.
fn story(path: &Path) -> Vec<String> {
    let lines = read(path).unwrap();
    lines.iter().map(|l| format!("{} {}", l["event"].as_str().unwrap(), l["iteration"])).collect()
}

#[test]
fn classes_of_ones_own_have_their_names_colors_and_no_others_means() {
    let color = |text: &str| serde_json::from_value(json!(text)).unwrap();
    let names = vec!["sea".into(), "land".into()];
    let own = DatasetConfig { names, colors: vec![color("#0000ff"), color("#a0B001")] };
    let classes = Classes::new(&own);
    let mut confusion = Confusion::new(2);
    confusion.add(&[0, 1, 1], &[0, 0, 1]).unwrap();
    let report = Report { confusion, classes: classes.clone(), ..evaluation() };
    let table = report.table();
    assert!(table.contains("sea") && table.contains("land") && !table.contains("SYNTHIA"));
    assert!(report.summary().starts_with("mIoU 50.00  aAcc 66.67"), "{}", report.summary());
    let told = report.to_json();
    assert_eq!((&told["classes"][1]["name"], &told["mIoU16"]), (&json!("land"), &Value::Null));
    assert!(told["percent"].get("mIoU13").is_none());
    let seen = overlay(PICTURE, &[1, 0], &classes, 1.0).unwrap();
    assert_eq!(seen, [0xa0, 0xb0, 1, 0, 0, 255]);
    assert_eq!([0, 1, 2].map(|id| classes.label_id(id)), [0, 1, 255]);
    // Colors are generated where none are given, all of them distinct.
    let names = (0..254).map(|i| format!("class of number {i}")).collect();
    let many = Classes::new(&DatasetConfig { names, colors: Vec::new() });
    let colors: std::collections::HashSet<_> = (0..254).map(|id| many.color(id).unwrap()).collect();
    assert_eq!((colors.len(), many.color(254)), (254, None));
    assert!(!colors.contains(&[0; 3]));
}

#[test]
fn a_log_tells_what_a_run_was_and_did() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run/log.jsonl");
    let mut log = Log::create(&path, 0, "run", &config()).unwrap();
    let mut it = iteration(0);
    it.more.insert("skipped".into(), json!(["a.png"]));
    log.iteration(&it).unwrap();
    log.evaluation(1, &evaluation()).unwrap();
    let mut fields = serde_json::Map::new();
    fields.insert("file".into(), "a.safetensors".into());
    log.note("checkpoint", 1, fields).unwrap();

    let lines = read(&path).unwrap();
    assert_eq!(story(&path), ["start 0", "iteration 0", "evaluation 1", "checkpoint 1"]);
    assert_eq!(lines[0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(lines[0]["config"]["network"]["backbone"], "mit_b0");
    assert!(lines[0]["unix_time"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(lines[1]["losses"], json!({"decode.loss_seg": 1.5, "mix.decode.loss_seg": 0.25}));
    assert_eq!((&lines[1]["lr"], &lines[1]["pseudo_label_weight"]), (&json!(6e-5), &json!(0.75)));
    assert_eq!((&lines[1]["images_per_second"], &lines[1]["seconds"]), (&json!(2.5), &json!(1.6)));
    assert_eq!(lines[1]["skipped"], json!(["a.png"]));
    assert_eq!((&lines[2]["mIoU"], &lines[2]["IoU"][0]), (&json!(0.25), &json!(0.5)));
    assert_eq!(lines[2]["IoU"][5], Value::Null);
    assert_eq!((&lines[2]["mIoU16"], &lines[2]["mIoU13"]), (&json!(0.25), &json!(0.25)));
    assert_eq!(lines[3]["file"], "a.safetensors");
}

#[test]
fn a_loss_that_is_not_finite_is_null_and_the_line_stays_json() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.jsonl");
    let mut it = iteration(0);
    it.losses = vec![("a".into(), f32::NAN), ("b".into(), f32::INFINITY)];
    Log::create(&path, 0, "run", &config()).unwrap().iteration(&it).unwrap();
    assert_eq!(read(&path).unwrap()[1]["losses"], json!({"a": null, "b": null}));
}

#[test]
fn a_new_run_does_not_write_over_an_old_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.jsonl");
    Log::create(&path, 0, "run", &config()).unwrap();
    let before = fs::read(&path).unwrap();
    let told = Log::create(&path, 0, "run", &config()).unwrap_err().to_string();
    assert!(told.contains("log.jsonl: ") && told.contains("--resume") && told.contains("--out"));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn resuming_drops_what_happens_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.jsonl");
    let mut log = Log::create(&path, 0, "run", &config()).unwrap();
    for i in 0..4 {
        log.iteration(&iteration(i)).unwrap();
        if i % 2 == 1 {
            log.evaluation(i + 1, &evaluation()).unwrap();
        }
    }
    drop(log);
    // Simulates a process killed in the middle of a line.
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(br#"{"event":"iteration","itera"#);
    fs::write(&path, &text).unwrap();
    assert_eq!(read(&path).unwrap().len(), 7, "the torn line is left out by readers too");

    // The checkpoint was written after iterations 0 and 1.
    let mut log = Log::resume(&path, 2, "run", &config()).unwrap();
    log.iteration(&iteration(2)).unwrap();
    let expected =
        ["start 0", "iteration 0", "iteration 1", "evaluation 2", "start 2", "iteration 2"];
    assert_eq!(story(&path), expected);
    assert_eq!(names(folder.path()), ["log.jsonl"]);
}

#[test]
fn resuming_where_it_ended_keeps_every_byte() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.jsonl");
    let mut log = Log::create(&path, 0, "run", &config()).unwrap();
    log.iteration(&iteration(0)).unwrap();
    drop(log);
    let before = fs::read(&path).unwrap();
    drop(Log::resume(&path, 1, "run", &config()).unwrap());
    let after = fs::read(&path).unwrap();
    assert!(after.starts_with(&before) && after.len() > before.len());
    assert_eq!(story(&path), ["start 0", "iteration 0", "start 1"]);
}

#[test]
fn resuming_without_a_log_begins_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.jsonl");
    drop(Log::resume(&path, 7, "run", &config()).unwrap());
    assert_eq!(story(&path), ["start 7"]);
}

#[test]
fn a_line_that_is_not_json_is_named_by_its_number() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.jsonl");
    fs::write(&path, "{\"a\":1}\nnonsense\n{\"a\":2}\n").unwrap();
    let told = read(&path).unwrap_err().to_string();
    assert!(told.contains("log.jsonl: line 2: "), "{told}");
    // Resuming keeps the damaged line for the user to see.
    drop(Log::resume(&path, 1, "run", &config()).unwrap());
    assert!(fs::read_to_string(&path).unwrap().contains("nonsense\n"));
}

// ---- images

/// 2x1: a dark and a bright pixel.
const RGB: [u8; 6] = [10, 20, 30, 200, 210, 220];
const PICTURE: ImageView = ImageView { width: 2, height: 1, rgb: &RGB };

fn decode(path: &Path) -> (usize, usize, png::ColorType, Vec<u8>) {
    let file = io::BufReader::new(fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    data.truncate(info.buffer_size());
    (info.width as usize, info.height as usize, info.color_type, data)
}

#[test]
fn an_overlay_blends_classes_and_leaves_the_rest() {
    // Half of road's (128, 64, 128) over (10, 20, 30); 255 is not a class.
    let blended = overlay(PICTURE, &[0, 255], &Classes::cityscapes(), 0.5).unwrap();
    assert_eq!(blended, [69, 42, 79, 200, 210, 220]);
    assert_eq!(overlay(PICTURE, &[0, 255], &Classes::cityscapes(), 0.0).unwrap(), RGB);
    assert_eq!(
        overlay(PICTURE, &[0, 13], &Classes::cityscapes(), 1.0).unwrap(),
        [128, 64, 128, 0, 0, 142]
    );
}

#[test]
fn pictures_are_pngs_of_the_right_size() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("overlay.png");
    save_overlay(&path, PICTURE, &[0, 255], &Classes::cityscapes()).unwrap();
    let (width, height, color, data) = decode(&path);
    assert_eq!((width, height, color), (2, 1, png::ColorType::Rgb));
    assert_eq!(data, [81, 46, 89, 200, 210, 220], "60 % of road's color");

    let path = folder.path().join("comparison.png");
    let tall = ImageView { width: 1, height: 2, rgb: &RGB };
    save_comparison(&path, tall, &[0, 13], Some(&[255, 13]), &Classes::cityscapes()).unwrap();
    let (width, height, _, data) = decode(&path);
    assert_eq!((width, height), (3, 2));
    assert_eq!(data[..9], [10, 20, 30, 128, 64, 128, 0, 0, 0]);
    assert_eq!(data[9..], [200, 210, 220, 0, 0, 142, 0, 0, 142]);

    save_comparison(&path, tall, &[0, 13], None, &Classes::cityscapes()).unwrap();
    assert_eq!(decode(&path).0, 2);
}

#[test]
fn label_files_hold_cityscapes_ids_under_the_servers_names() {
    let folder = TempDir::new().unwrap();
    let image = "x/frankfurt_000000_000294_leftImg8bit.png";
    let path =
        save_label_ids(folder.path(), image, 3, 1, &[0, 18, 255], &Classes::cityscapes()).unwrap();
    assert_eq!(path, folder.path().join("frankfurt_000000_000294_labelIds.png"));
    let (width, height, color, data) = decode(&path);
    assert_eq!((width, height, color), (3, 1, png::ColorType::Grayscale));
    assert_eq!(data, [7, 33, 0]);
    assert_eq!(label_ids_name(Path::new("street.of.mine.jpg")), "street.of.mine.png");
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.png");
    let told = save_overlay(&path, PICTURE, &[0], &Classes::cityscapes()).unwrap_err().to_string();
    assert_eq!(told, "picture: a 2x1 image of 6 bytes, an overlay of 1 pixels");
    assert!(save_comparison(&path, PICTURE, &[0, 0], Some(&[0]), &Classes::cityscapes()).is_err());
    assert!(save_label_ids(folder.path(), "a.png", 2, 2, &[0], &Classes::cityscapes()).is_err());
    assert!(names(folder.path()).is_empty());
}
