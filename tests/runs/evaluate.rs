//! Tests what `eval` writes about single images.

use std::fs;

use serde_json::Value;

use crate::support::{folder, reference_checkpoint, succeed, text};

#[test]
fn every_image_has_its_result_and_the_worst_come_first() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (json, csv, html) = (at("a.json"), at("a.csv"), at("a.html"));
    let checkpoint = reference_checkpoint();
    let files = ["--json", text(&json), "--csv", text(&csv), "--html", text(&html), "--worst", "3"];
    succeed("eval", &[&["--checkpoint", text(&checkpoint)], &files[..]].concat());

    let all: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let images = all["per_image"].as_array().unwrap();
    assert_eq!(images.len(), 4);
    let sum: u64 = images.iter().map(|image| image["pixels"].as_u64().unwrap()).sum();
    assert_eq!(sum, all["pixels"].as_u64().unwrap());
    // Weighted by their pixels, the images' accuracies are that of the whole.
    let right = |image: &Value| image["aAcc"].as_f64().unwrap() * image["pixels"].as_f64().unwrap();
    let accuracy = images.iter().map(right).sum::<f64>() / sum as f64;
    assert!((accuracy - all["aAcc"].as_f64().unwrap()).abs() < 1e-12);
    for image in images {
        let iou: Vec<f64> =
            image["IoU"].as_object().unwrap().values().map(|iou| iou.as_f64().unwrap()).collect();
        let mean = iou.iter().sum::<f64>() / iou.len() as f64;
        assert!((mean - image["mIoU"].as_f64().unwrap()).abs() < 1e-12);
    }

    let table = fs::read_to_string(&csv).unwrap();
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.trim_end().split(',').collect()).collect();
    assert_eq!(rows[0][..5], ["file", "mIoU", "aAcc", "pixels", "road"]);
    assert!(rows.len() == 5 && rows.iter().all(|row| row.len() == 4 + 19), "{table}");
    for (row, image) in rows[1..].iter().zip(images) {
        assert_eq!(row[0], image["file"]);
        assert_eq!(row[1], format!("{:.6}", image["mIoU"].as_f64().unwrap()));
    }

    let page = fs::read_to_string(&html).unwrap();
    let mut by_iou: Vec<&Value> = images.iter().collect();
    by_iou.sort_by(|a, b| a["mIoU"].as_f64().unwrap().total_cmp(&b["mIoU"].as_f64().unwrap()));
    let mut rest = page.as_str();
    for (place, image) in by_iou[..3].iter().enumerate() {
        let title = format!("<h3>{}. {}</h3>", place + 1, image["file"].as_str().unwrap());
        rest = rest.split_once(&title).unwrap_or_else(|| panic!("{title}")).1;
    }
    assert!(!page.contains(by_iou[3]["file"].as_str().unwrap()));
    assert_eq!(page.matches("<img src=\"data:image/jpeg;base64,").count(), 9);
    assert_eq!(page.matches("<img src=\"data:image/png;base64,").count(), 3);
    for elsewhere in ["http://", "https://", "@import", "href=", "url("] {
        assert!(!page.contains(elsewhere), "the page loads something: {elsewhere}");
    }
    // Every share of a label's pixels from a ten-thousandth on has a cell.
    let rows: Vec<Vec<f64>> = serde_json::from_value(all["confusion_matrix"].clone()).unwrap();
    let shares = rows.iter().flat_map(|row| {
        let all = row.iter().sum::<f64>().max(1.0);
        row.iter().map(move |count| count / all)
    });
    assert_eq!(page.matches("<rect ").count(), shares.filter(|&share| share >= 1e-4).count());
}

/// The difference shows exactly the wrong pixels: a picture of one color where all are wrong.
#[test]
fn the_difference_marks_what_is_wrong() {
    use base64::Engine;
    let folder = folder();
    let html = folder.path().join("a.html");
    let checkpoint = reference_checkpoint();
    succeed("eval", &["--checkpoint", text(&checkpoint), "--html", text(&html), "--worst", "1"]);
    let page = fs::read_to_string(&html).unwrap();
    let (_, rest) = page.split_once("data:image/png;base64,").unwrap();
    let png = rest.split('"').next().unwrap();
    let png = base64::prelude::BASE64_STANDARD.decode(png).unwrap();
    let picture = image::load_from_memory(&png).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (128, 64));
    let (_, about) = page.split_once("</h3>\n<p class=\"soft\">mIoU ").unwrap();
    let right = about.split_once(", ").unwrap().1.split_once(' ').unwrap().0;
    let right: f64 = right.parse().unwrap();
    let wrong = picture.pixels().filter(|pixel| pixel.0 == [235, 40, 60]).count() as f64;
    let unlabeled = picture.pixels().filter(|pixel| pixel.0[0] < 64).count() as f64;
    let labeled = 128.0 * 64.0 - unlabeled;
    let shown = 100.0 * (1.0 - wrong / labeled);
    assert!((shown - right).abs() < 1.0, "{shown} {right}");
}
