//! Tests rare-class sampling against the reference's numbers.

use udass_raw::{
    Result,
    config::RareClassSampling,
    data::{
        layouts,
        sampling::{
            FileStats, FilesByClass, RareClassSampler, rare_class_probabilities, read_class_stats,
        },
    },
    rng::{Draw, Purpose},
};

use crate::support::{Sets, write};

const CONFIG: RareClassSampling = RareClassSampling {
    enabled: true,
    temperature: 0.01,
    min_pixels: 20,
    min_crop_ratio: 0.5,
    attempts: 10,
};

/// The stored case also has the format of the released tools' `sample_class_stats.json`.
#[test]
fn golden_probabilities() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pub_piece_rcs.json");
    let case: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stats = serde_json::to_vec_pretty(&case["config"]["sample_class_stats"]).unwrap();
    write(&folder.path().join("sample_class_stats.json"), &stats);
    let stats = read_class_stats(folder.path(), 19).unwrap();
    assert_eq!(stats.len(), 6);
    assert_eq!(stats[1].file, "00001_labelTrainIds.png");
    for (key, temperature) in [("T0.01", 0.01), ("T0.1", 0.1)] {
        let (classes, probabilities) = rare_class_probabilities(&stats, temperature);
        let expected = &case["config"][key];
        let expected_classes: Vec<u8> =
            serde_json::from_value(expected["classes"].clone()).unwrap();
        assert_eq!(classes, expected_classes);
        let expected: Vec<f64> = serde_json::from_value(expected["prob"].clone()).unwrap();
        assert_eq!(probabilities.len(), expected.len());
        for ((class, &got), expected) in classes.iter().zip(&probabilities).zip(expected) {
            let error = (got as f64 - expected).abs() / expected;
            assert!(error <= 1e-4, "{key}, class {class}: {got} for {expected}");
        }
    }
}

#[test]
fn classes_of_equal_count_keep_the_order_they_were_seen_in() {
    let stats = |counts: &[(u8, u64)]| FileStats { file: "a".into(), counts: counts.to_vec() };
    let stats = [stats(&[(4, 10), (9, 10)]), stats(&[(2, 10), (7, 3)])];
    // A temperature without end leaves no difference.
    assert_eq!(rare_class_probabilities(&stats, f64::INFINITY).1, [0.25; 4]);
    let (classes, probabilities) = rare_class_probabilities(&stats, 0.5);
    assert_eq!(classes, [7, 4, 9, 2]);
    assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    assert_eq!(rare_class_probabilities(&[], 0.01), (vec![], vec![]));
}

fn sampler(sets: &Sets, config: &RareClassSampling) -> Result<RareClassSampler> {
    let pairs = layouts::find("gta")?.pairs(&sets.gta(), layouts::Split::Train)?;
    RareClassSampler::new(config, &sets.gta(), &FilesByClass::read(&sets.gta(), &pairs, 19)?)
}

#[test]
fn draws_follow_the_probabilities_and_files_hold_the_class() {
    let sets = Sets::bands();
    let config = RareClassSampling { temperature: 0.2, ..CONFIG };
    let sampler = sampler(&sets, &config).unwrap();
    let stats = read_class_stats(&sets.gta(), 19).unwrap();
    let (classes, probabilities) = rare_class_probabilities(&stats, 0.2);
    assert_eq!(classes[0], 5);
    let draws = 40_000;
    let mut seen = vec![0u32; classes.len()];
    for slot in 0..draws {
        let draw = |purpose| Draw::new(3, 0, purpose, slot, 0);
        let (class, file) = sampler.draw(draw(Purpose::SourceClass), draw(Purpose::SourceFile));
        seen[classes.iter().position(|&c| c == class).unwrap()] += 1;
        assert!(stats[file].counts.iter().any(|&(c, n)| c == class && n > 20));
        assert!(class != 5 || file == 4);
    }
    for (&seen, p) in seen.iter().zip(probabilities) {
        let deviation = (draws as f32 * p * (1.0 - p)).sqrt();
        assert!((seen as f32 - draws as f32 * p).abs() < 5.0 * deviation, "{seen} for {p}");
    }
}

#[test]
fn a_class_with_too_few_pixels_everywhere_is_named() {
    let config = RareClassSampling { min_pixels: 36, ..CONFIG };
    let error = sampler(&Sets::bands(), &config).unwrap_err().to_string();
    assert!(error.contains("no image contains more than 36 pixels of class 5"), "{error}");
    assert!(error.contains("rare_class_sampling.min_pixels"), "{error}");
}

/// The released tools write paths with another folder, and entries in their own order.
#[test]
fn statistics_of_the_released_tools_serve() {
    let sets = Sets::bands();
    let json = r#"[
  {
    "5": 500,
    "file": "data/gta/labels/00003_labelTrainIds.png"
  },
  {
    "2": 900,
    "5": 30,
    "file": "data/gta/labels/00001_labelTrainIds.png"
  }
]"#;
    write(&sets.gta().join("sample_class_stats.json"), json.as_bytes());
    let json = r#"{
  "5": [
    [
      "data/gta/labels/00003_labelTrainIds.png",
      500
    ],
    [
      "data/gta/labels/00001_labelTrainIds.png",
      30
    ]
  ],
  "2": [
    [
      "data\\gta\\labels\\00001_labelTrainIds.png",
      900
    ]
  ]
}"#;
    write(&sets.gta().join("samples_with_class.json"), json.as_bytes());
    let pairs = layouts::find("gta").unwrap().pairs(&sets.gta(), layouts::Split::Train).unwrap();
    let files = FilesByClass::read(&sets.gta(), &pairs, 19).unwrap();
    assert_eq!(files.holding(5, 0), [3, 1]);
    assert_eq!(files.holding(5, 30), [3]);
    assert_eq!(files.holding(2, 899), [1]);
    assert_eq!(files.holding(2, 900), [0u32; 0]);
    assert_eq!(files.holding(11, 0), [0u32; 0]);
    assert!(sampler(&sets, &CONFIG).is_ok());
}

#[test]
fn bad_statistics_say_what_is_wrong_and_what_to_do() {
    let sets = Sets::bands();
    let path = sets.gta().join("samples_with_class.json");
    let stats = sets.gta().join("sample_class_stats.json");
    let cases: [(&std::path::Path, &str, &[&str]); 6] = [
        (
            &path,
            r#"{"5": [["labels/99999_labelTrainIds.png", 9]]}"#,
            &["labels/99999_labelTrainIds.png", "5 labels", "prepare"],
        ),
        (&path, r#"{"19": [["labels/00001_labelTrainIds.png", 9]]}"#, &["\"19\" is not a class"]),
        (&path, r#"{"5": [["labels/0000"#, &["not the expected JSON", "prepare"]),
        (&stats, r#"[{"5": 4}]"#, &["has no key \"file\""]),
        (&stats, r#"[{"5": -4, "file": "x"}]"#, &["class \"5\" has -4 pixels"]),
        (&stats, "[]", &["no label contains any class"]),
    ];
    for (path, text, expected) in cases {
        let before = std::fs::read(path).unwrap();
        write(path, text.as_bytes());
        let error = sampler(&sets, &CONFIG).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        for part in expected {
            assert!(error.contains(part), "{part:?} in {error}");
        }
        write(path, &before);
    }
    std::fs::remove_file(&stats).unwrap();
    let error = sampler(&sets, &CONFIG).unwrap_err().to_string();
    assert!(error.contains("sample_class_stats.json") && error.contains("udass-raw prepare"));
}
