//! Tests the zip file for Cityscapes' evaluation server.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use udass_raw::data::classes::CITYSCAPES;
use zip::ZipArchive;

use crate::support::{folder, reference, run, stderr, succeed, text, world};

/// Returns the images of a split of the toy world, `<city>/<name>`.
fn images(root: &Path, split: &str) -> Vec<PathBuf> {
    let cities = fs::read_dir(root.join("leftImg8bit").join(split)).unwrap();
    let mut all: Vec<PathBuf> = cities
        .flat_map(|city| fs::read_dir(city.unwrap().path()).unwrap())
        .map(|image| image.unwrap().path())
        .collect();
    all.sort();
    all
}

/// Returns width, height and ids of a PNG, which must be 8-bit gray.
fn label_ids(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    assert_eq!(
        (info.color_type, info.bit_depth),
        (png::ColorType::Grayscale, png::BitDepth::Eight)
    );
    (info.width as usize, info.height as usize, data)
}

/// Returns the files of a zip by name.
fn contents(zip: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = ZipArchive::new(fs::File::open(zip).unwrap()).unwrap();
    let count = archive.len();
    let read = |index| {
        let mut file = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        // Reading fails if the checksum does not match.
        file.read_to_end(&mut bytes).unwrap();
        let name = file.name().unwrap().into_owned();
        (name, bytes)
    };
    (0..count).map(read).collect()
}

fn submit(zip: &Path, more: &[&str]) -> String {
    let args = ["--checkpoint", text(reference()), "--submission", text(zip)];
    String::from_utf8(succeed("predict", &[&args, more].concat()).stdout).unwrap()
}

#[test]
fn the_zip_holds_what_predict_says_of_every_image() {
    let folder = folder();
    let zip = folder.path().join("a/val.zip");
    assert_eq!(submit(&zip, &["--split", "val"]), format!("{}\n", zip.display()));
    let (files, images) = (contents(&zip), images(&world().join("cityscapes"), "val"));
    assert_eq!((files.len(), images.len()), (4, 4), "one file for every image and no other");

    let out = folder.path().join("out");
    let mut args: Vec<&str> = images.iter().map(|image| text(image)).collect();
    args.extend(["--checkpoint", text(reference()), "--out", text(&out)]);
    succeed("predict", &args);
    for image in images {
        let name = image.file_name().unwrap().to_str().unwrap();
        let name = name.replace("_leftImg8bit.png", "_labelIds.png");
        let bytes = &files[&format!("results/{name}")];
        let (width, height, ids) = label_ids(bytes);
        assert_eq!((width, height), (128, 64), "{name}");
        let known = |id: &u8| CITYSCAPES.iter().any(|class| class.label_id == *id);
        assert!(ids.iter().all(known), "{name}: ids of label files");
        // Evaluation runs at these images' own size, so both commands give the same result.
        assert!(*bytes == fs::read(out.join(&name)).unwrap(), "{name}");
    }

    let again = folder.path().join("again.zip");
    submit(&again, &["--split", "val"]);
    assert!(fs::read(&zip).unwrap() == fs::read(&again).unwrap(), "the same bytes");
}

#[test]
fn the_zip_is_of_the_network_asked_for() {
    let folder = folder();
    let of = |network: &str| {
        let zip = folder.path().join(format!("{network}.zip"));
        submit(&zip, &["--split", "val", "--weights", network]);
        contents(&zip)
    };
    let (student, teacher) = (of("student"), of("teacher"));
    assert!(student.keys().eq(teacher.keys()));
    assert_ne!(student, teacher, "the two networks differ");

    let out = folder.path().join("out");
    let images = images(&world().join("cityscapes"), "val");
    let mut args: Vec<&str> = images.iter().map(|image| text(image)).collect();
    args.extend(["--checkpoint", text(reference()), "--weights", "teacher", "--out", text(&out)]);
    succeed("predict", &args);
    for (name, bytes) in teacher {
        let name = name.strip_prefix("results/").unwrap();
        assert!(bytes == fs::read(out.join(name)).unwrap(), "{name}");
    }
}

/// Creates a dataset that has only a `test` split, without labels.
fn test_split(root: &Path, images: &[(&str, &str, (usize, usize))]) {
    for (city, name, (width, height)) in images {
        let rgb: Vec<u8> = (0..3 * width * height).map(|i| (i * 7 % 251) as u8).collect();
        let path = root.join("leftImg8bit/test").join(city).join(name);
        udass_raw::run::eval::images::save_rgb(path, *width, *height, &rgb).unwrap();
    }
}

#[test]
fn the_test_split_needs_no_labels_and_comes_back_in_its_own_size() {
    let folder = folder();
    let root = folder.path().join("cityscapes");
    let (berlin, bonn) = ("berlin_000000_000019", "bonn_000012_000019");
    let name = |frame: &str| format!("{frame}_leftImg8bit.png");
    test_split(&root, &[("berlin", &name(berlin), (97, 61)), ("bonn", &name(bonn), (200, 100))]);
    let zip = folder.path().join("test.zip");
    let root = format!("target.root={}", root.display());
    submit(&zip, &["--set", &root]);
    let files = contents(&zip);
    let sizes: Vec<(&str, (usize, usize))> = (files.iter())
        .map(|(name, bytes)| (name.as_str(), label_ids(bytes)))
        .map(|(name, (width, height, _))| (name, (width, height)))
        .collect();
    let expected = [berlin, bonn].map(|frame| format!("results/{frame}_labelIds.png"));
    assert_eq!(sizes, [(expected[0].as_str(), (97, 61)), (expected[1].as_str(), (200, 100))]);
}

/// ACDC's and Dark Zurich's servers read train ids under the images' own names.
#[test]
fn adverse_conditions_have_servers_of_their_own() {
    let folder = folder();
    let root = folder.path().join("acdc");
    let rgb: Vec<u8> = (0..3 * 97 * 61).map(|i| (i * 7 % 251) as u8).collect();
    let frames = [("fog", "GOPR0475_frame_000047"), ("night", "GOPR0351_frame_000159")];
    for (condition, frame) in frames {
        let path = root.join(format!("rgb_anon/{condition}/test/{frame}_rgb_anon.png"));
        udass_raw::run::eval::images::save_rgb(path, 97, 61, &rgb).unwrap();
    }
    let zip = folder.path().join("test.zip");
    let target = format!("target.root={}", root.display());
    submit(&zip, &["--set", &target, "--set", "target.layout=acdc"]);
    let files = contents(&zip);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let expected = [frames[1].1, frames[0].1].map(|f| format!("labelTrainIds/{f}_rgb_anon.png"));
    assert_eq!(names, [&expected[0], &expected[1]]);
    for bytes in files.values() {
        let (width, height, ids) = label_ids(bytes);
        assert_eq!((width, height), (97, 61));
        assert!(ids.iter().all(|&id| id < 19), "train ids, not label ids");
    }
    // The pictures are equal, and so are their predictions.
    assert_eq!(files.values().next(), files.values().last());
}

#[test]
fn what_the_server_could_not_read_is_refused_before_any_prediction() {
    let folder = folder();
    let refuse = |images: &[(&str, &str, (usize, usize))], more: &[&str]| {
        let root = folder.path().join(format!("{}", images.len()));
        test_split(&root, images);
        let (zip, root) = (folder.path().join("a.zip"), format!("target.root={}", root.display()));
        let args = ["--checkpoint", text(reference()), "--submission", text(&zip), "--set", &root];
        let output = run("predict", &[&args, more].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(!zip.exists() && !folder.path().join(".a.zip.tmp").exists());
        stderr(&output)
    };
    let small = (64, 64);
    let good = ("ulm", "ulm_000000_000019_leftImg8bit.png", small);
    let told = refuse(&[good, ("ulm", "ulm_19_leftImg8bit.png", small)], &[]);
    assert!(told.contains("ulm_19_leftImg8bit.png: Cityscapes names its images <city>_"), "{told}");
    let twice = ("bonn", "ulm_000000_000019_leftImg8bit.png", small);
    let told = refuse(&[good, twice, ("ulm", "ulm_000000_000020_leftImg8bit.png", small)], &[]);
    assert!(told.contains("has the same name as") && told.contains("bonn"), "{told}");
    let told = refuse(&[good], &["--set", "target.layout=gta"]);
    assert!(told.contains("target.layout is `gta`"), "{told}");
    let told = refuse(&[], &[]);
    assert!(told.contains("leftImg8bit/test: this folder is missing"), "{told}");
    // An image that cannot be read is an error, and no file is left behind.
    let root = folder.path().join("1");
    let path = root.join("leftImg8bit/test/ulm/ulm_000000_000021_leftImg8bit.png");
    fs::write(&path, b"no picture").unwrap();
    let told = refuse(&[good], &[]);
    assert!(told.contains(text(&path)), "{told}");
}
