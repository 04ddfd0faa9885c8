//! Tests the confusion matrix and the report, against the reference's numbers where it has any.

use safetensors::SafeTensors;
use udass_raw::data::classes::Classes;
use udass_raw::run::eval::metrics::{Confusion, nan_mean, percent};
use udass_raw::run::eval::report::{Report, Subject, Validated};

const FIXTURE: &[u8] = include_bytes!("golden/pub_piece_metrics.safetensors");

fn u64s(tensors: &SafeTensors, name: &str) -> Vec<u64> {
    let data = tensors.tensor(name).unwrap();
    data.data().chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u64).collect()
}

fn f64s(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    let data = tensors.tensor(name).unwrap();
    data.data().chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// NaN must match NaN; other numbers must agree within 1e-12, the stored case's tolerance.
fn same(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    for (class, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let good = if b.is_nan() { a.is_nan() } else { (a - b).abs() <= 1e-12 };
        assert!(good, "class {class}: {a} instead of {b}");
    }
}

/// Adds up the three images of the stored case one by one.
fn golden(mut each: impl FnMut(&SafeTensors, usize, &Confusion)) -> Confusion {
    let tensors = SafeTensors::deserialize(FIXTURE).unwrap();
    let mut all = Confusion::new(19);
    for i in 0..3 {
        let prediction = tensors.tensor(&format!("{i}/pred")).unwrap();
        let label = tensors.tensor(&format!("{i}/gt")).unwrap();
        let mut one = Confusion::new(19);
        one.add(prediction.data(), label.data()).unwrap();
        each(&tensors, i, &one);
        all.merge(&one).unwrap();
    }
    all
}

#[test]
fn counts_of_each_image_are_the_references() {
    golden(|tensors, i, one| {
        assert_eq!(one.intersections(), u64s(tensors, &format!("{i}/intersect")));
        assert_eq!(one.unions(), u64s(tensors, &format!("{i}/union")));
        assert_eq!(one.predicted(), u64s(tensors, &format!("{i}/area_pred")));
        assert_eq!(one.labeled(), u64s(tensors, &format!("{i}/area_label")));
    });
}

#[test]
fn scores_of_all_images_are_the_references() {
    let all = golden(|_, _, _| {});
    let tensors = SafeTensors::deserialize(FIXTURE).unwrap();
    same(&all.iou(), &f64s(&tensors, "IoU"));
    same(&all.accuracy(), &f64s(&tensors, "Acc"));
    // The scalars of the stored case.
    same(
        &[all.all_accuracy(), all.mean_iou(), all.mean_accuracy()],
        &[0.600_736_788_617_886_2, 0.414_795_861_707_480_8, 0.593_716_805_956_389_2],
    );
    assert_eq!(percent(all.mean_iou()), 41.48);
    let rounded: Vec<Option<f64>> =
        all.iou().into_iter().map(|x| (!x.is_nan()).then(|| percent(x))).collect();
    let stored = [
        45.94, 44.8, 36.64, 44.55, 45.27, 50.96, 48.34, -1.0, 41.34, 50.9, 36.99, 45.87, 47.21,
        42.29, 48.25, 36.47, 0.0, 36.69, 44.11,
    ];
    assert_eq!(rounded, stored.map(|x| (x >= 0.0).then_some(x)));
}

#[test]
fn a_small_matrix_by_hand() {
    // Labels 0 0 0 1 1 255, predictions 0 0 1 1 0 2; rows are labels.
    let mut c = Confusion::new(3);
    c.add(&[0, 0, 1, 1, 0, 2], &[0, 0, 0, 1, 1, 255]).unwrap();
    assert_eq!(c.counts(), [2, 1, 0, 1, 1, 0, 0, 0, 0]);
    assert_eq!(c.pixels(), 5, "the unlabeled pixel does not count, whatever was predicted");
    same(&c.iou(), &[2.0 / 4.0, 1.0 / 3.0, f64::NAN]);
    same(&c.accuracy(), &[2.0 / 3.0, 1.0 / 2.0, f64::NAN]);
    assert_eq!(c.all_accuracy(), 3.0 / 5.0);
    assert_eq!(c.mean_iou(), (0.5 + 1.0 / 3.0) / 2.0);
    assert_eq!(Confusion::from_counts(3, c.counts().to_vec()).unwrap(), c);
}

#[test]
fn a_class_only_predicted_has_iou_0_and_no_accuracy() {
    let mut c = Confusion::new(2);
    c.add(&[0, 1], &[0, 0]).unwrap();
    same(&c.iou(), &[0.5, 0.0]);
    same(&c.accuracy(), &[0.5, f64::NAN]);
}

#[test]
fn nothing_counted_is_nan_and_not_zero() {
    let c = Confusion::new(19);
    assert!(c.mean_iou().is_nan() && c.all_accuracy().is_nan() && c.mean_accuracy().is_nan());
    assert!(nan_mean([f64::NAN]).is_nan());
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_counts() {
    let mut c = Confusion::new(19);
    let told = |r: udass_raw::Result<()>| r.unwrap_err().to_string();
    assert!(told(c.add(&[0], &[0, 0])).contains("1 predicted pixels but 2 labeled"));
    assert!(told(c.add(&[0, 0], &[0, 33])).contains("label id 33 is neither a class (0 to 18)"));
    assert!(told(c.add(&[0, 19], &[0, 0])).contains("predicted id 19 is not a class"));
    assert!(told(c.merge(&Confusion::new(2))).contains("19 classes against 2"));
    assert!(Confusion::from_counts(2, vec![0; 3]).is_err());
    assert_eq!(c, Confusion::new(19));
}

#[test]
fn synthia_means_leave_its_missing_classes_out() {
    // Class k has an IoU of exactly k/100: k of its 100 pixels are correct, and the rest is
    // predicted as class 0, which is excluded by hand below.
    let mut counts = vec![0; 19 * 19];
    for k in 1..19u64 {
        counts[k as usize * 19 + k as usize] = k;
        counts[k as usize * 19] = 100 - k;
    }
    let c = Confusion::from_counts(19, counts).unwrap();
    let mean = |without: &[usize]| {
        let kept: Vec<f64> =
            (0..19).filter(|k| !without.contains(k)).map(|k| k as f64 / 100.0).collect();
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    same(&[c.mean_iou_16(), c.mean_iou_13()], &[mean(&[9, 14, 16]), mean(&[9, 14, 16, 3, 4, 5])]);
}

#[test]
fn percent_rounds_halves_to_even() {
    assert_eq!(percent(0.123_25), 12.32, "0.12325 times 10 000 is 1232.5 exactly");
    assert_eq!(percent(0.123_75), 12.38);
    assert_eq!(percent(1.0 / 3.0), 33.33);
    assert!(percent(f64::NAN).is_nan());
}

#[test]
fn class_table_is_cityscapes() {
    let classes = Classes::cityscapes();
    assert_eq!(classes.name(6), "traffic light");
    assert_eq!(classes.name(40), "class 40");
    assert_eq!((classes.color(13), classes.color(255)), (Some([0, 0, 142]), None));
    let ids: Vec<u8> = (0..19).map(|id| classes.label_id(id)).collect();
    assert_eq!(ids, [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]);
    assert_eq!(classes.label_id(255), 0);
}

fn report() -> Report {
    let mut confusion = Confusion::new(19);
    confusion.add(&[0, 0, 1, 1], &[0, 0, 0, 1]).unwrap();
    Report {
        subject: Subject {
            config: "toy_vit".into(),
            checkpoint: Some("runs/a.safetensors".into()),
            iteration: Some(600),
            training: None,
        },
        configuration: serde_json::json!({"method": "mic"}),
        confusion,
        classes: Classes::cityscapes(),
        images: 2,
        per_image: Vec::new(),
        data: Validated { sizes: vec![[4, 1]], folders: vec!["ulm".into()] },
        seconds: 4.0,
    }
}

#[test]
fn the_table_shows_every_class_and_a_dash_for_absent_ones() {
    let table = report().table();
    let row = |name: &str| {
        let line = table.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{table}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(row("road"), ["road", "66.67", "66.67"]);
    assert_eq!(row("sidewalk"), ["sidewalk", "50.00", "100.00"]);
    assert_eq!(row("traffic sign"), ["traffic", "sign", "-", "-"]);
    assert_eq!(row("mean"), ["mean", "58.33", "83.33"]);
    assert!(
        table.ends_with(
            "mIoU 58.33  mIoU16 58.33  mIoU13 58.33  aAcc 75.00  (2 images in 4.0 s, 0.50 images/s)"
        ),
        "{table}"
    );
    assert_eq!(table.matches("bicycle").count(), 1);
}

#[test]
fn the_json_holds_everything_and_null_for_absent_classes() {
    let json = report().to_json();
    let read: serde_json::Value = serde_json::from_str(&json.to_string()).unwrap();
    assert_eq!(read, json);
    assert_eq!(json["classes"][0]["name"], "road");
    assert_eq!(json["classes"][0]["IoU"], 2.0 / 3.0);
    assert!(json["classes"][18]["IoU"].is_null() && json["classes"][18]["Acc"].is_null());
    same(&[json["mIoU"].as_f64().unwrap()], &[7.0 / 12.0]);
    assert_eq!(json["percent"]["mIoU"], 58.33);
    assert_eq!((&json["aAcc"], &json["images"]), (&0.75.into(), &2.into()));
    assert_eq!(
        json["confusion_matrix"][0][1], 1,
        "row is the label: one road pixel was called sidewalk"
    );
    assert_eq!(json["confusion_matrix"].as_array().unwrap().len(), 19);
    assert_eq!((&json["config"], &json["iteration"]), (&"toy_vit".into(), &600.into()));
    assert_eq!(json["checkpoint"], "runs/a.safetensors");
    assert_eq!(json["data"]["sizes"][0], serde_json::json!([4, 1]));
    assert_eq!(json["data"]["folders"][0], "ulm");
    assert_eq!(json["configuration"]["method"], "mic");
    assert!(json["training"].is_null());
}
