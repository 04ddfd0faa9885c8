//! Tests preparation: what it writes, and that it can be run again.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use udass_raw::{
    Result,
    data::{
        layouts,
        prepare::{self, Prepared},
    },
    observer::Observer,
};

use crate::support::{Sets, gray, located, png, train_ids, write};

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
    prepare::prepare(layouts::find(layout)?, root, &())
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
    let prepared = prepare::prepare(gta, &sets.gta(), &calls).unwrap();
    assert_eq!(calls.0.into_inner(), 3);
    assert_eq!(prepared, Prepared { written: 3, kept: 0, pixels: vec![(0, 3), (2, 2), (18, 1)] });

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
    let pixels = vec![(0, 3), (10, 1), (14, 1), (18, 1)];
    assert_eq!(prepared, Prepared { written: 2, kept: 0, pixels });
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
    assert_eq!(prepared, Prepared { written: 3, kept: 0, pixels: vec![(0, 3), (1, 1)] });
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

    // One file was damaged by a crash, one is missing, and one's label has been replaced since.
    write(&root.join("labels/00001_labelTrainIds.png"), b"\x89PNG\r\n\x1a\n");
    std::fs::remove_file(root.join("labels/00002_labelTrainIds.png")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH;
    let converted = root.join("labels/00003_labelTrainIds.png");
    let converted = std::fs::File::options().write(true).open(converted).unwrap();
    converted.set_modified(old).unwrap();
    let second = prepare_as("gta", &root).unwrap();
    assert_eq!((second.written, second.kept), (3, 1));
    assert_eq!(second.pixels, first.pixels);
    assert_eq!(files.map(|f| text(root.join(f))), before);
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
    assert_eq!(prepared.pixels, []);
    assert_eq!(text(sets.gta().join("samples_with_class.json")), "{}");
}

#[test]
fn every_problem_is_found_and_nothing_counted() {
    let sets = Sets::new();
    for number in 1..=3 {
        sets.add_gta(number, [2, 2], &[7; 4]);
    }
    let root = sets.gta();
    write(&root.join("labels/00002.png"), &gray([2, 2], &[7, 7, 77, 7]));
    let error = prepare_as("gta", &root).unwrap_err().to_string();
    assert!(error.contains("00002.png: label id 77 at x 0, y 1"), "{error}");

    write(&root.join("images/00003.png"), &located([3, 2], 3));
    let error = prepare_as("gta", &root).unwrap_err().to_string();
    assert!(error.contains("2 labels cannot be used"), "{error}");
    assert!(error.contains("label id 77"), "{error}");
    let expected = "this label is 2x2, but its image";
    assert!(error.contains(expected) && error.contains("00003.png is 3x2"), "{error}");
    assert!(!root.join("sample_class_stats.json").exists());
    assert!(root.join("labels/00001_labelTrainIds.png").exists());
}
