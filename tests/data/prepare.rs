//! Tests preparation: what it writes, and that it can be run again.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use udass_raw::{
    Result,
    data::{
        labels::{CITYSCAPES_IDS, LabelFile},
        layouts,
        prepare::{self, ClassCount, Prepared},
    },
    observer::Observer,
};

use crate::support::{Sets, gray, located, pixels, png, train_ids, write};

/// Counts the steps that are reported, out of three.
#[derive(Default)]
struct Calls(AtomicUsize);

impl Observer for Calls {
    fn begin(&self, _: usize, _: usize) {}

    fn advance(&self, done: usize, total: usize, _: &str) {
        assert!((1..=3).contains(&done) && total == 3);
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn message(&self, _: &str) {}
}

fn prepare_as(layout: &str, root: &Path) -> Result<Prepared> {
    prepare::prepare(layouts::find(layout)?, root, false, &())
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn gta_statistics_have_the_released_form() {
    let sets = Sets::new();
    sets.add_gta(2, [3, 2], &[7, 7, 11, 0, 0, 7]);
    sets.add_gta(1, [3, 2], &[0; 6]);
    sets.add_gta(3, [2, 1], &[33, 11]);
    let calls = Calls::default();
    let gta = layouts::find("gta").unwrap();
    let prepared = prepare::prepare(gta, &sets.gta(), false, &calls).unwrap();
    assert_eq!(calls.0.into_inner(), 3);
    assert_eq!((prepared.written, prepared.kept, prepared.counted), (3, 0, 3));
    assert_eq!(pixels(&prepared), [(0, 3), (2, 2), (18, 1)]);
    // Every class of the layout is listed, whether it occurs or not.
    assert_eq!(prepared.classes.len(), 19);
    assert_eq!(prepared.classes[2], ClassCount { class: 2, pixels: 2, images: 2 });
    assert_eq!(prepared.classes[18], ClassCount { class: 18, pixels: 1, images: 1 });
    assert_eq!(prepared.classes[3], ClassCount { class: 3, pixels: 0, images: 0 });
    assert_eq!(prepared.notes, [""; 0]);

    let labels = sets.gta().join("labels");
    let prepared = train_ids(&labels.join("00002_labelTrainIds.png")).unwrap();
    assert_eq!(prepared.data, [0, 0, 2, 255, 255, 0]);
    // Byte for byte what Python's json.dump(…, indent=2) writes.
    let file = |n: u8| labels.join(format!("0000{n}_labelTrainIds.png")).display().to_string();
    let (one, two, three) = (file(1), file(2), file(3));
    let expected = format!(
        "[\n  {{\n    \"file\": \"{one}\"\n  }},\n  {{\n    \"0\": 3,\n    \"2\": 1,\n    \"file\": \
         \"{two}\"\n  }},\n  {{\n    \"2\": 1,\n    \"18\": 1,\n    \"file\": \"{three}\"\n  }}\n]"
    );
    assert_eq!(text(sets.gta().join("sample_class_stats.json")), expected);
    let expected = format!(
        "{{\n  \"{one}\": {{}},\n  \"{two}\": {{\n    \"0\": 3,\n    \"2\": 1\n  }},\n  \
         \"{three}\": {{\n    \"2\": 1,\n    \"18\": 1\n  }}\n}}"
    );
    assert_eq!(text(sets.gta().join("sample_class_stats_dict.json")), expected);
    let entry = |file: &str, n| format!("    [\n      \"{file}\",\n      {n}\n    ]");
    let expected = format!(
        "{{\n  \"0\": [\n{}\n  ],\n  \"2\": [\n{},\n{}\n  ],\n  \"18\": [\n{}\n  ]\n}}",
        entry(&two, 3),
        entry(&two, 1),
        entry(&three, 1),
        entry(&three, 1)
    );
    assert_eq!(text(sets.gta().join("samples_with_class.json")), expected);
}

#[test]
fn synthia_is_prepared_like_gta() {
    let sets = Sets::new();
    let root = sets.folder.path().join("synthia");
    let labels = root.join("GT/LABELS");
    for (number, ids) in [(1, [3u16, 3, 18, 0]), (0, [11, 22, 3, 1])] {
        let name = format!("{number:07}.png");
        write(&root.join("RGB").join(&name), &located([2, 2], number));
        let data: Vec<u8> =
            ids.iter().flat_map(|&id| [id, 7, 0].map(u16::to_be_bytes)).flatten().collect();
        let label = png([2, 2], png::ColorType::Rgb, png::BitDepth::Sixteen, &data);
        write(&labels.join(&name), &label);
    }
    let prepared = prepare_as("synthia", &root).unwrap();
    assert_eq!((prepared.written, prepared.kept), (2, 0));
    assert_eq!(pixels(&prepared), [(0, 3), (10, 1), (14, 1), (18, 1)]);
    let prepared_label = labels.join("0000000_labelTrainIds.png");
    assert_eq!(train_ids(&prepared_label).unwrap().data, [18, 255, 0, 10]);
    let stats: serde_json::Value =
        serde_json::from_str(&text(root.join("sample_class_stats.json"))).unwrap();
    let file = |n| labels.join(format!("000000{n}_labelTrainIds.png")).display().to_string();
    let expected = serde_json::json!([
        {"0": 1, "10": 1, "18": 1, "file": file(0)},
        {"0": 2, "14": 1, "file": file(1)},
    ]);
    assert_eq!(stats, expected);
    // The data is ready for training: the prepared labels are found next to the downloaded ones.
    let pairs = layouts::find("synthia").unwrap().pairs(&root, layouts::Split::Train).unwrap();
    assert_eq!(pairs.len(), 2);
    assert_eq!(pairs[0].label.path, prepared_label);
    assert_eq!(pairs[0].image, root.join("RGB/0000000.png"));
    assert_eq!(prepare_as("synthia", &root).unwrap().kept, 2);
}

#[test]
fn cityscapes_counts_train_only_and_lists_every_split() {
    let sets = Sets::new();
    sets.add_cityscapes("train", 8, [2, 1], &[7, 8]);
    sets.add_cityscapes("train", 3, [2, 1], &[7, 7]);
    sets.add_cityscapes("val", 1, [2, 1], &[33, 33]);
    let root = sets.cityscapes();
    let prepared = prepare_as("cityscapes", &root).unwrap();
    assert_eq!((prepared.written, prepared.kept, prepared.counted), (3, 0, 2));
    assert_eq!(pixels(&prepared), [(0, 3), (1, 1)]);
    assert_eq!(text(root.join("train.txt")), "ulm/ulm_000003_000019\nulm/ulm_000008_000019\n");
    assert_eq!(text(root.join("val.txt")), "ulm/ulm_000001_000019\n");
    assert_eq!(text(root.join("test.txt")), "");
    let val = root.join("gtFine/val/ulm/ulm_000001_000019_gtFine_labelTrainIds.png");
    assert_eq!(train_ids(&val).unwrap().data, [18, 18]);
    assert!(!text(root.join("sample_class_stats.json")).contains("000001"));
}

#[test]
fn running_again_keeps_what_is_good_and_redoes_what_is_not() {
    let sets = Sets::new();
    for number in 1..=4 {
        sets.add_gta(number, [2, 2], &[7, 8, 11, number]);
    }
    let root = sets.gta();
    let first = prepare_as("gta", &root).unwrap();
    assert_eq!((first.written, first.kept), (4, 0));
    let files = ["sample_class_stats.json", "samples_with_class.json"];
    let before = files.map(|f| text(root.join(f)));

    // One file was damaged by a crash, one is missing, and one has ids of another kind.
    write(&root.join("labels/00001_labelTrainIds.png"), b"\x89PNG\r\n\x1a\n");
    std::fs::remove_file(root.join("labels/00002_labelTrainIds.png")).unwrap();
    write(&root.join("labels/00003_labelTrainIds.png"), &gray([2, 2], &[1, 1, 2, 3]));
    let second = prepare_as("gta", &root).unwrap();
    assert_eq!((second.written, second.kept), (3, 1));
    assert_eq!(second.classes, first.classes);
    assert_eq!(files.map(|f| text(root.join(f))), before);
    let [note] = second.notes.as_slice() else { panic!("{:?}", second.notes) };
    assert!(note.contains("1 of 4 labels") && note.contains("labels/00003.png"), "{note}");
    let converted = train_ids(&root.join("labels/00003_labelTrainIds.png")).unwrap();
    assert_eq!(converted.data, [0, 1, 2, 255]);
    let names = std::fs::read_dir(root.join("labels")).unwrap();
    let leftovers =
        names.filter(|n| n.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn labels_all_unlabeled_are_no_error() {
    let sets = Sets::new();
    sets.add_gta(1, [5, 3], &[0; 15]);
    let prepared = prepare_as("gta", &sets.gta()).unwrap();
    assert_eq!(pixels(&prepared), []);
    assert_eq!(text(sets.gta().join("samples_with_class.json")), "{}");
}

#[test]
fn every_problem_is_found_and_nothing_counted() {
    let sets = Sets::new();
    for number in 1..=3 {
        sets.add_gta(number, [2, 2], &[7; 4]);
    }
    let root = sets.gta();
    write(&root.join("labels/00002.png"), b"no image");
    let error = prepare_as("gta", &root).unwrap_err().to_string();
    assert!(error.contains("00002.png: not a PNG file"), "{error}");

    write(&root.join("images/00003.png"), b"no image");
    let error = prepare_as("gta", &root).unwrap_err().to_string();
    assert!(error.contains("2 labels cannot be used"), "{error}");
    assert!(error.contains("00002.png: not a PNG file") && error.contains("00003.png"), "{error}");
    assert!(!root.join("sample_class_stats.json").exists());
    assert!(root.join("labels/00001_labelTrainIds.png").exists());
}

#[test]
fn ids_outside_the_list_are_counted_and_unlabeled() {
    let sets = Sets::new();
    for number in 1..=3 {
        sets.add_gta(number, [5, 2], &[7; 10]);
    }
    let root = sets.gta();
    write(&root.join("labels/00002.png"), &gray([5, 2], &[7, 7, 35, 7, 7, 7, 35, 7, 77, 7]));
    let prepared = prepare_as("gta", &root).unwrap();
    let [note] = prepared.notes.as_slice() else { panic!("{:?}", prepared.notes) };
    let expected = "3 pixels in 1 of 3 labels have label id 35, 77 (expected 0 to 34, or 255)";
    assert!(note.contains(expected), "{note}");
    assert_eq!(pixels(&prepared), [(0, 27)]);
    let converted = train_ids(&root.join("labels/00002_labelTrainIds.png")).unwrap();
    assert_eq!(converted.data, [0, 0, 255, 0, 0, 0, 255, 0, 255, 0]);

    // One label of another kind does not stop the set; a set of them does.
    write(&root.join("labels/00003.png"), &gray([5, 2], &[99; 10]));
    assert_eq!(pixels(&prepare_as("gta", &root).unwrap()), [(0, 17)]);
    for number in 1..=3 {
        write(&root.join(format!("labels/0000{number}.png")), &gray([5, 2], &[99; 10]));
    }
    let error = prepare_as("gta", &root).unwrap_err().to_string();
    assert!(error.contains("100.0 % of the pixels have label id 99"), "{error}");
    // Where it is read without preparation, a label of another kind is an error of its own.
    let label = LabelFile { path: root.join("labels/00003.png"), ids: CITYSCAPES_IDS.clone() };
    let error = label.load().unwrap_err().to_string();
    assert!(error.contains("00003.png") && error.contains("label id 99"), "{error}");
}

#[test]
fn pairs_of_two_sizes_are_told_and_counted() {
    let sets = Sets::new();
    for number in 1..=3 {
        sets.add_gta(number, [2, 2], &[7; 4]);
    }
    let root = sets.gta();
    write(&root.join("images/00003.png"), &located([3, 2], 3));
    let prepared = prepare_as("gta", &root).unwrap();
    let [note] = prepared.notes.as_slice() else { panic!("{:?}", prepared.notes) };
    assert!(note.contains("1 of 3 labels differ in size"), "{note}");
    assert!(note.contains("labels/00003.png"), "{note}");
    assert_eq!(pixels(&prepared), [(0, 12)]);

    // A prediction cannot be compared with a label of another size.
    sets.add_cityscapes("val", 1, [2, 1], &[7, 7]);
    let image = "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png";
    write(&sets.cityscapes().join(image), &located([3, 1], 1));
    let error = prepare_as("cityscapes", &sets.cityscapes()).unwrap_err().to_string();
    assert!(error.contains("this label is 2x1, but its image"), "{error}");
}

#[test]
fn labels_and_images_without_each_other_are_told() {
    let sets = Sets::new();
    for number in 1..=4 {
        sets.add_gta(number, [2, 2], &[7; 4]);
    }
    let root = sets.gta();
    std::fs::remove_file(root.join("images/00002.png")).unwrap();
    let prepared = prepare_as("gta", &root).unwrap();
    let [note] = prepared.notes.as_slice() else { panic!("{:?}", prepared.notes) };
    assert!(note.contains("1 of 4 labels have no image"), "{note}");
    assert!(note.contains("labels/00002.png"), "{note}");
    assert_eq!((prepared.counted, pixels(&prepared)), (3, vec![(0, 12)]));
    assert!(!text(root.join("samples_with_class.json")).contains("00002"));

    // Training refuses an image without a label, and so does preparation, unless told otherwise.
    std::fs::remove_file(root.join("labels/00003.png")).unwrap();
    let error = prepare_as("gta", &root).unwrap_err().to_string();
    assert!(error.contains("1 of 3 images have no label: images/00003.png"), "{error}");
    assert!(error.contains("--skip-unlabeled") && error.contains("skip_unlabeled"), "{error}");
    let gta = layouts::find("gta").unwrap();
    let prepared = prepare::prepare(gta, &root, true, &()).unwrap();
    assert_eq!(prepared.counted, 2);
    assert!(prepared.notes.iter().any(|note| note.contains("images/00003.png")));

    // Images to adapt to need no labels: a split without any is complete.
    sets.add_cityscapes("val", 1, [2, 1], &[7, 7]);
    let image = "leftImg8bit/train/ulm/ulm_000003_000019_leftImg8bit.png";
    write(&sets.cityscapes().join(image), &located([2, 1], 3));
    assert_eq!(prepare_as("cityscapes", &sets.cityscapes()).unwrap().notes, [""; 0]);
}
