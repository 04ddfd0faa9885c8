//! Tests datasets that the user describes by globs and values, and those in adverse conditions.

use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType};
use tempfile::TempDir;
use udass_raw::{
    Result,
    config::{FilesConfig, LabelValue},
    data::{
        labels::{IdMap, LabelFile, Plane},
        layouts::{self, Files, Layout, Split},
        prepare::prepare,
        sampling::FilesByClass,
    },
};

use crate::support::{gray, located, palette, pixels, png, write};

fn described(images: &str, labels: &str) -> FilesConfig {
    FilesConfig {
        images: images.into(),
        labels: labels.into(),
        val_images: String::new(),
        val_labels: String::new(),
        ids: Vec::new(),
        ignore: vec![LabelValue::Id(255)],
        ignore_others: false,
    }
}

fn ids(classes: &[&[u16]]) -> Vec<Vec<LabelValue>> {
    classes.iter().map(|ids| ids.iter().copied().map(LabelValue::Id).collect()).collect()
}

/// Creates a folder with these files: names that contain `mask` are labels, the others images.
fn folder(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, name) in names.iter().enumerate() {
        let bytes = match name.contains("mask") {
            true => gray([2, 2], &[0, 1, 2, 255]),
            false => located([2, 2], number as u8),
        };
        write(&folder.path().join(name), &bytes);
    }
    folder
}

/// Returns images and labels of the training split, relative to the root.
fn pairs(root: &Path, files: &FilesConfig) -> Result<Vec<[String; 2]>> {
    let below = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let pairs = Files::new(files, 3)?.pairs(root, Split::Train)?;
    Ok(pairs.iter().map(|p| [below(&p.image), below(&p.label.path)]).collect())
}

#[track_caller]
fn told<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} in: {error}");
    }
}

#[test]
fn an_image_and_its_label_share_what_the_wildcards_stand_for() {
    let folder = folder(&[
        "a/2.png",
        "a/1.png",
        "a/deep/er/3.png",
        "a/x(1).jpg.png",
        "a/readme.txt",
        "masks/1_id.png",
        "masks/2_id.png",
        "masks/x(1).jpg_id.png",
        "masks/deep/er/3_id.png",
        "masks/4_id.png",
    ]);
    let root = folder.path();
    let flat = pairs(root, &described("a/*.png", "masks/*_id.png")).unwrap();
    let expected = [
        ["a/1.png", "masks/1_id.png"],
        ["a/2.png", "masks/2_id.png"],
        ["a/x(1).jpg.png", "masks/x(1).jpg_id.png"],
    ];
    assert_eq!(flat, expected);
    let deep = pairs(root, &described("a/**/*.png", "masks/**/*_id.png")).unwrap();
    assert_eq!(deep.len(), 4);
    assert_eq!(deep[2], ["a/deep/er/3.png", "masks/deep/er/3_id.png"]);
    let question = pairs(root, &described("a/?.png", "masks/?_id.png")).unwrap();
    assert_eq!(question, expected[..2]);
    // One named file; without `**`, subfolders are not searched.
    let one = pairs(root, &described("a/deep/er/3.png", "masks/deep/er/3_id.png")).unwrap();
    assert_eq!(one.len(), 1);
    // Absolute globs work as well.
    let [images, labels] = ["a/?.png", "masks/?_id.png"].map(|glob| root.join(glob));
    let whole = described(images.to_str().unwrap(), labels.to_str().unwrap());
    assert_eq!(pairs(root, &whole).unwrap(), expected[..2]);
}

#[test]
fn globs_that_find_nothing_and_images_without_labels_are_named() {
    let folder = folder(&["a/1.png", "a/2.png", "masks/1_id.png"]);
    let root = folder.path();
    let tried = |images: &str, labels: &str| pairs(root, &described(images, labels));
    let here = root.to_str().unwrap();
    told(tried("a/*.jpg", "masks/*.png"), &[here, "no file matches files.images = \"a/*.jpg\""]);
    let tif = root.join("masks/1.tif");
    told(tried("a/*.png", "masks/*.tif"), &["a/1.png", "no label", tif.to_str().unwrap()]);
    let gone = root.join("b");
    told(tried("b/*.png", "masks/*.png"), &[gone.to_str().unwrap(), "files.images", "missing"]);
    let [orphan, label] = ["a/2.png", "masks/2_id.png"].map(|name| root.join(name));
    let parts = [orphan.to_str().unwrap(), "no label", label.to_str().unwrap()];
    told(tried("a/*.png", "masks/*_id.png"), &parts);
    let layout = Files::new(&described("a/*.png", "masks/*_id.png"), 3).unwrap();
    let labels = layout.labels_of(root, Split::Train, &root.join("a/1.png")).unwrap();
    assert_eq!(labels[0].path, root.join("masks/1_id.png"));
    told(
        layout.labels_of(root, Split::Train, &root.join("1.png")),
        &["is none of files.images = \"a/*.png\""],
    );
}

fn load(bytes: &[u8], files: &FilesConfig, classes: usize) -> Result<Plane> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("label.png");
    write(&path, bytes);
    LabelFile { path, ids: IdMap::of_files(files, classes).into() }.load()
}

#[test]
fn ids_become_classes_as_listed() {
    let mut files = described("*", "*");
    // No ids are listed, so values are class numbers.
    let plain = load(&palette([4, 1], &[0, 2, 255, 1]), &files, 3).unwrap();
    assert_eq!(plain.data, [0, 2, 255, 1]);
    let bad = load(&gray([2, 2], &[0, 1, 3, 0]), &files, 3);
    told(bad, &["label.png", "id 3 at x 0, y 1", "0 to 2 (files.ids is empty)"]);

    files.ids = ids(&[&[7], &[8, 9, 1000], &[]]);
    files.ignore = vec![LabelValue::Id(0), LabelValue::Id(4000)];
    let listed = load(&gray([4, 1], &[7, 9, 0, 8]), &files, 3).unwrap();
    assert_eq!(listed.data, [0, 1, 255, 1]);
    let bad = load(&gray([2, 1], &[7, 255]), &files, 3);
    told(bad, &["id 255 at x 1, y 0", "a value of files.ids or files.ignore"]);
    // 16-bit ids, alone or followed by other channels.
    let wide: Vec<u8> = [7u16, 1000, 4000].iter().flat_map(|id| id.to_be_bytes()).collect();
    let bytes = png([3, 1], ColorType::Grayscale, BitDepth::Sixteen, &wide);
    assert_eq!(load(&bytes, &files, 3).unwrap().data, [0, 1, 255]);
    let wide: Vec<u8> = [5000u16, 1].iter().flat_map(|id| id.to_be_bytes()).collect();
    let bytes = png([2, 1], ColorType::Grayscale, BitDepth::Sixteen, &wide);
    told(load(&bytes, &files, 3), &["id 5000 at x 0, y 0"]);
    let rgb = png([1, 1], ColorType::Rgb, BitDepth::Eight, &[7, 7, 7]);
    told(load(&rgb, &files, 3), &["Rgb pixels of 8 bits"]);

    files.ignore_others = true;
    let bytes = png([2, 1], ColorType::Grayscale, BitDepth::Sixteen, &wide);
    assert_eq!(load(&bytes, &files, 3).unwrap().data, [255, 255]);
    assert_eq!(load(&gray([2, 1], &[7, 99]), &files, 3).unwrap().data, [0, 255]);
}

#[test]
fn colors_become_classes_as_listed() {
    let mut files = described("*", "*");
    let color = |rgb| vec![LabelValue::Color(rgb)];
    files.ids = vec![color([128, 64, 128]), color([0, 0, 142]), color([1, 0, 0])];
    files.ignore = color([0, 0, 0]);
    let pixels = [[128, 64, 128], [0, 0, 0], [1, 0, 0], [0, 0, 142]];
    let expected = [0, 255, 2, 1];
    let rgb = png([4, 1], ColorType::Rgb, BitDepth::Eight, pixels.as_flattened());
    assert_eq!(load(&rgb, &files, 3).unwrap().data, expected);
    let rgba: Vec<u8> = pixels.iter().flat_map(|[r, g, b]| [*r, *g, *b, 9]).collect();
    let rgba = png([4, 1], ColorType::Rgba, BitDepth::Eight, &rgba);
    assert_eq!(load(&rgba, &files, 3).unwrap().data, expected);
    let rgb = png([2, 1], ColorType::Rgb, BitDepth::Eight, &[0, 0, 0, 10, 171, 7]);
    told(load(&rgb, &files, 3), &["label.png", "color \"#0aab07\" at x 1, y 0", "files.ignore"]);
    files.ignore_others = true;
    assert_eq!(load(&rgb, &files, 3).unwrap().data, [255, 255]);
}

#[test]
fn preparation_counts_and_tells_when_the_values_have_changed() {
    // Two labels have the same file name; the statistics must not confuse them.
    let folder = folder(&["x/a/1.png", "x/b/1.png", "val/9.png", "vmask/9.png"]);
    let root = folder.path();
    write(&root.join("mask/a/1.png"), &gray([2, 2], &[5, 5, 5, 6]));
    write(&root.join("mask/b/1.png"), &gray([2, 2], &[6, 6, 7, 0]));
    let mut files = described("x/**/*.png", "mask/**/*.png");
    files.ids = ids(&[&[5], &[6, 7]]);
    files.ignore = vec![LabelValue::Id(0)];
    let layout = Files::new(&files, 2).unwrap();
    told(layout.check_statistics(root), &["label_values.json", "prepare files"]);
    let prepared = prepare(&layout, root, false, &()).unwrap();
    assert_eq!((prepared.written, prepared.kept), (0, 2));
    assert_eq!(pixels(&prepared), [(0, 3), (1, 4)]);
    layout.check_statistics(root).unwrap();
    assert_eq!(std::fs::read_dir(root.join("mask/a")).unwrap().count(), 1, "nothing beside labels");
    let pairs = layout.pairs(root, Split::Train).unwrap();
    let found = FilesByClass::read(root, &pairs, 2).unwrap();
    assert_eq!((found.holding(0, 0), found.holding(1, 2)), (vec![0], vec![1]));
    assert_eq!(found.holding(1, 0), [0, 1]);

    // Validation labels are checked as well, but not counted.
    (files.val_images, files.val_labels) = ("val/*.png".into(), "vmask/*.png".into());
    told(
        prepare(&Files::new(&files, 2).unwrap(), root, false, &()),
        &["vmask/9.png", "id 1 at x 1"],
    );
    files.ids[1].push(LabelValue::Id(8));
    told(
        Files::new(&files, 2).unwrap().check_statistics(root),
        &["with other `ids`", "prepare files"],
    );
}

/// Returns the pairs of image and label in `split`, relative to the root.
fn listed(layout: &str, root: &Path, split: Split) -> Vec<[String; 2]> {
    let below = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let pairs = layouts::find(layout).unwrap().pairs(root, split).unwrap();
    pairs.iter().map(|p| [below(&p.image), below(&p.label.path)]).collect()
}

#[test]
fn acdc_is_read_as_downloaded_and_as_the_reference_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let add = |place: &str, number: u8| {
        let image = root.join("rgb_anon").join(format!("{place}_rgb_anon.png"));
        write(&image, &located([3, 1], number));
        let label = root.join("gt").join(format!("{place}_gt_labelTrainIds.png"));
        write(&label, &gray([3, 1], &[number, 255, 18]));
    };
    add("snow/train/GP01/GP01_frame_000002", 2);
    add("fog/train/GOPR01/GOPR01_frame_000001", 1);
    add("fog/val/GOPR02/GOPR02_frame_000001", 3);
    // The daytime reference image is not part of the dataset.
    let day = "rgb_anon/fog/train_ref/GOPR01/GOPR01_frame_000001_rgb_ref_anon.png";
    write(&root.join(day), &located([3, 1], 9));
    let pair = |place: &str| {
        [format!("rgb_anon/{place}_rgb_anon.png"), format!("gt/{place}_gt_labelTrainIds.png")]
    };
    let [fog, snow] =
        ["fog/train/GOPR01/GOPR01_frame_000001", "snow/train/GP01/GP01_frame_000002"].map(pair);
    assert_eq!(listed("acdc", root, Split::Train), [fog, snow]);
    assert_eq!(listed("acdc", root, Split::Val), [pair("fog/val/GOPR02/GOPR02_frame_000001")]);
    let acdc = layouts::find("acdc").unwrap();
    let prepared = prepare(acdc, root, false, &()).unwrap();
    // Nothing is converted, and validation is not counted.
    assert_eq!((prepared.written, prepared.kept), (0, 3));
    assert_eq!(pixels(&prepared), [(1, 1), (2, 1), (18, 2)]);

    // With the images of all conditions moved together, only the common folder is listed.
    add("train/GOPR01_frame_000001", 1);
    let together = pair("train/GOPR01_frame_000001");
    assert_eq!(listed("acdc", root, Split::Train), [together]);

    let empty = tempfile::tempdir().unwrap();
    let images = acdc.images(empty.path(), Split::Train);
    told(images, &["rgb_anon/train", "missing", "acdc.vision.ee.ethz.ch"]);
}

#[test]
fn dark_zurich_is_what_was_taken_at_night() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let image = |place: &str| {
        let path = root.join("rgb_anon").join(format!("{place}_rgb_anon.png"));
        write(&path, &located([2, 1], 0));
        path
    };
    let night = image("train/night/GOPR0351/GOPR0351_frame_000172");
    image("train/day/GOPR0345/GOPR0345_frame_000276");
    image("train/twilight/GOPR0348/GOPR0348_frame_000001");
    image("val/night/GOPR0356/GOPR0356_frame_000321");
    image("val_ref/day/GOPR0345/GOPR0345_frame_000300");
    let dark = layouts::find("dark_zurich").unwrap();
    assert_eq!(dark.images(root, Split::Train).unwrap(), std::slice::from_ref(&night));
    // Uses the train ids or, where they are missing, the label ids next to them.
    let label = "gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_label";
    write(&root.join(format!("{label}Ids.png")), &gray([2, 1], &[7, 0]));
    let image = "rgb_anon/val/night/GOPR0356/GOPR0356_frame_000321_rgb_anon.png".to_owned();
    assert_eq!(
        listed("dark_zurich", root, Split::Val),
        [[image.clone(), format!("{label}Ids.png")]]
    );
    let pairs = dark.pairs(root, Split::Val).unwrap();
    assert_eq!(pairs[0].label.load().unwrap().data, [0, 255]);
    write(&root.join(format!("{label}TrainIds.png")), &gray([2, 1], &[18, 255]));
    assert_eq!(listed("dark_zurich", root, Split::Val), [[image, format!("{label}TrainIds.png")]]);
    let pairs = dark.pairs(root, Split::Val).unwrap();
    assert_eq!(pairs[0].label.load().unwrap().data, [18, 255]);
    told(dark.pairs(root, Split::Train), &[night.to_str().unwrap(), "no label", "labelTrainIds"]);
    assert_eq!(prepare(dark, root, false, &()).unwrap().kept, 1);
}
