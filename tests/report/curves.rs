//! The curves of runs, and runs that differ only in their seed.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Made, refused, row, told};

/// Writes the log of a run of 300 iterations with evaluations after 100, 200 and 300, whose IoU is that
/// of class 0 and rises by `step` with each class.
pub fn log(folder: &Path, config: &Value, iou: [f64; 3], step: f64) {
    let seed = config["seed"].as_u64().unwrap() as f64;
    let mut lines = vec![
        json!({"event": "start", "iteration": 0, "version": "0.1.0", "config": config}),
        json!({"event": "machine", "iteration": 0, "device": "host, 2 thread(s)",
            "processor": "Abacus <9>, 2 cores", "commit": "abc1234"}),
    ];
    for iteration in 0..300u64 {
        let loss = 4.0 / (1.0 + iteration as f64 / 50.0) + 0.1 * seed;
        lines.push(json!({
            "event": "iteration", "iteration": iteration, "lr": 6e-5,
            "losses": {"decode.loss_seg": loss, "mix.decode.loss_seg": loss / 2.0},
            "images_per_second": 8.0, "seconds": 0.5, "pseudo_label_weight": 0.25,
            "peak_device_bytes": 3u64 << 30,
        }));
        if (iteration + 1).is_multiple_of(100) {
            let first = iou[iteration as usize / 100];
            let classes: Vec<f64> = (0..19).map(|class| first + step * f64::from(class)).collect();
            lines.push(json!({"event": "evaluation", "iteration": iteration + 1, "IoU": classes,
                "images": 500, "data": super::cityscapes()}));
        }
    }
    fs::create_dir_all(folder).unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(folder.join("log.jsonl"), text).unwrap();
}

/// Writes a run for each seed, whose IoU is higher by a percentage point for each.
pub fn seeds(folder: &Path, seeds: &[u64]) {
    for &seed in seeds {
        let mut config = Made::new("gta_vit", None).config;
        config["seed"] = json!(seed);
        config["run"]["out"] = json!(format!("runs/mine_seed{seed}"));
        config["device"]["kind"] = json!(format!("cuda:{seed}"));
        let iou = [0.2, 0.3, 0.4].map(|iou| iou + 0.01 * seed as f64);
        log(&folder.join(format!("mine_seed{seed}")), &config, iou, 0.0);
    }
}

/// The lines of a CSV file that begin with these fields.
fn points<'a>(csv: &'a str, start: &str) -> Vec<&'a str> {
    csv.lines().filter_map(|line| line.strip_prefix(start)).collect()
}

fn number(line: &str, field: usize) -> f64 {
    line.split(',').nth(field).unwrap().parse().unwrap()
}

#[test]
fn runs_that_differ_only_in_their_seed_are_one_with_mean_and_deviation() {
    let folder = TempDir::new().unwrap();
    seeds(folder.path(), &[1, 2, 3]);
    let mut other = Made::new("gta_vit", Some("mic")).config;
    other["seed"] = json!(4);
    log(&folder.path().join("other"), &other, [0.5; 3], 0.0);
    let args = ["mine_seed1", "mine_seed2", "other", "mine_seed3", "--csv", "a.csv"];
    let text = told(folder.path(), &args);
    let header = text.lines().find(|line| line.contains("class")).unwrap();
    assert_eq!(header.matches("seeds").count(), 1, "{text}");
    assert_eq!(row(&text, "road")[..6], ["42.0", "±", "1.0", "−55.5", "50.0", "−47.4"]);
    assert_eq!(row(&text, "mIoU")[..4], ["42.0", "±", "1.0", "−34.1"]);
    let about = "mine, 3 seeds (quadmix on mit_b5, 300 iterations, mine_seed1, mine_seed2, \
                 mine_seed3)\n";
    assert!(text.contains(about), "{text}");
    assert!(text.contains("mIoU 42.0 ± 1.0, 34.1 below the published QuadMix(ViT)"), "{text}");

    let csv = fs::read_to_string(folder.path().join("a.csv")).unwrap();
    assert!(csv.starts_with("chart,run,iterations,mean,standard deviation,seeds\n"), "{csv}");
    let mine = points(&csv, "mIoU,\"mine, 3 seeds\",");
    assert_eq!(mine.iter().map(|line| number(line, 0)).collect::<Vec<_>>(), [100.0, 200.0, 300.0]);
    for (line, mean) in mine.iter().zip([22.0, 32.0, 42.0]) {
        let close = |field: usize, value: f64| (number(line, field) - value).abs() < 1e-9;
        assert!(close(1, mean) && close(2, 1.0) && close(3, 3.0), "{line}");
    }
    assert_eq!(points(&csv, "mIoU,other,"), ["100,50,,1", "200,50,,1", "300,50,,1"]);
    // Two iterations are one point: of the first two, with seeds that differ by 0.1 a pass.
    let loss = points(&csv, "loss,\"mine, 3 seeds\",");
    assert_eq!(loss.len(), 150, "{loss:?}");
    let expected = 1.5 * (4.0 + 4.0 / 1.02 + 0.4) / 2.0;
    assert!((number(loss[0], 1) - expected).abs() < 1e-9, "{}", loss[0]);
    assert!((number(loss[0], 2) - 0.15).abs() < 1e-9, "{}", loss[0]);
    for (chart, value) in [
        ("confident pseudo-labels", 25.0),
        ("images per second", 8.0),
        ("learning rate", 6e-5),
        ("peak device memory", f64::from(3u32 << 30)),
    ] {
        let all = points(&csv, &format!("{chart},other,"));
        assert_eq!(all.len(), 150, "{chart}");
        assert!(all.iter().all(|line| number(line, 1) == value), "{chart}");
    }
    assert_eq!(points(&csv, "bicycle,other,").len(), 3);
}

#[test]
fn seeds_are_compared_after_as_many_iterations() {
    let folder = TempDir::new().unwrap();
    seeds(folder.path(), &[1, 2]);
    // The second run has not come as far.
    let path = folder.path().join("mine_seed2/log.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let kept = text.lines().filter(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["iteration"].as_u64().unwrap() < 210
    });
    fs::write(&path, kept.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let text = told(folder.path(), &["mine_seed1", "mine_seed2"]);
    assert!(text.contains("(quadmix on mit_b5, 200 iterations, "), "{text}");
    assert_eq!(row(&text, "road")[..3], ["31.5", "±", "0.7"]);

    // The same seed twice is no second sample, and neither is another setting.
    seeds(folder.path(), &[1, 2]);
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(folder.path().join("mine_seed1/log.jsonl"), copy.join("log.jsonl")).unwrap();
    let text = told(folder.path(), &["mine_seed1", "copy"]);
    assert_eq!(row(&text, "road")[..4], ["41.0", "−56.5", "41.0", "−56.5"]);
    let mut config = Made::new("gta_vit", None).config;
    config["seed"] = json!(7);
    config["optimizer"]["lr"] = json!(1e-4);
    log(&copy, &config, [0.3; 3], 0.0);
    let text = told(folder.path(), &["mine_seed1", "copy"]);
    assert_eq!(row(&text, "road")[..4], ["41.0", "−56.5", "30.0", "−67.5"]);
}

#[test]
fn settings_are_told_against_the_nearest_preset() {
    let folder = TempDir::new().unwrap();
    let mut made = Made::new("toy_vit", None);
    made.folder(folder.path().join("toy"));
    let text = told(folder.path(), &["toy"]);
    assert!(text.contains("trained as preset toy_vit says\n"), "{text}");
    made.config["data"]["batch"] = json!(3);
    made.folder(folder.path().join("toy"));
    let text = told(folder.path(), &["toy"]);
    let expected = "trained as preset toy_vit says, but for 1 setting: data.batch 3 (2)\n";
    assert!(text.contains(expected), "{text}");
    // Where that is the preset of the published row, it is told once.
    Made::new("gta_vit", None).folder(folder.path().join("gta"));
    let text = told(folder.path(), &["gta"]);
    assert!(!text.contains("trained as preset"), "{text}");
}

#[test]
fn markdown_has_the_points_of_every_curve() {
    let folder = TempDir::new().unwrap();
    seeds(folder.path(), &[1, 2, 3]);
    let args = ["mine_seed1", "mine_seed2", "mine_seed3", "--markdown", "a.md"];
    told(folder.path(), &args);
    let markdown = fs::read_to_string(folder.path().join("a.md")).unwrap();
    let (_, curves) = markdown.split_once("## Curves\n").unwrap();
    let (_, iou) = curves.split_once("### mIoU, %\n").unwrap();
    assert_eq!(row(iou, "100"), ["22.0", "±", "1.0"]);
    assert_eq!(row(iou, "300"), ["42.0", "±", "1.0"]);
    let (_, loss) = curves.split_once("### loss\n").unwrap();
    let table: Vec<&str> = loss.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(table.len(), 2 + 12, "{table:?}");
    assert_eq!(row(loss, "300")[1..], ["±", "0.150"]);
    assert!(curves.contains("### peak device memory, GiB\n"), "{curves}");
}

#[test]
fn a_run_of_other_classes_has_them_in_its_report() {
    let folder = TempDir::new().unwrap();
    let mut config = Made::new("gta_vit", None).config;
    config["dataset"]["names"] = json!(["crack", "sound|<b>", "moss"]);
    config["dataset"]["colors"] = json!(["#ff0000", "#00ff00", "#0000ff"]);
    let lines = [
        json!({"event": "start", "iteration": 0, "config": config}),
        json!({"event": "evaluation", "iteration": 9, "IoU": [0.25, null, 0.75], "images": 5}),
    ];
    fs::create_dir(folder.path().join("mine")).unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(folder.path().join("mine/log.jsonl"), text).unwrap();
    Made::new("gta_vit", None).folder(folder.path().join("gta"));
    let files = ["--html", "a.html", "--markdown", "a.md", "--csv", "a.csv"];
    let text = told(folder.path(), &[&["mine", "gta"][..], &files].concat());
    assert_eq!(
        (row(&text, "crack"), row(&text, "moss")),
        (vec!["25.0".into()], vec!["75.0".into()])
    );
    assert!(text.contains("mIoU 50.0; no published results"), "{text}");
    let page = fs::read_to_string(folder.path().join("a.html")).unwrap();
    assert!(page.contains("rgb(255, 0, 0)") && page.contains("sound|&lt;b&gt;"), "{page}");
    let markdown = fs::read_to_string(folder.path().join("a.md")).unwrap();
    assert!(markdown.contains(r"sound\|\<b\>"), "{markdown}");
    let csv = fs::read_to_string(folder.path().join("a.csv")).unwrap();
    assert_eq!(points(&csv, "crack,mine,"), ["9,25,,1"]);
    assert!(points(&csv, "sound").is_empty(), "{csv}");
}

#[test]
fn a_run_that_was_not_evaluated_yet_has_curves() {
    let folder = TempDir::new().unwrap();
    let config = Made::new("gta_vit", None).config;
    log(&folder.path().join("mine"), &config, [0.0; 3], 0.0);
    let path = folder.path().join("mine/log.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let kept = text.lines().filter(|line| !line.contains("\"evaluation\""));
    fs::write(&path, kept.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let text = told(folder.path(), &["mine", "--csv", "a.csv", "--html", "a.html"]);
    assert!(text.contains("  not evaluated yet\n"), "{text}");
    assert_eq!(row(&text, "road")[..2], ["–", "–"]);
    let csv = fs::read_to_string(folder.path().join("a.csv")).unwrap();
    assert_eq!(points(&csv, "loss,mine,").len(), 150);
    assert!(points(&csv, "mIoU").is_empty());
    fs::write(&path, "").unwrap();
    assert!(refused(folder.path(), &["mine"]).contains("neither an iteration nor an evaluation"));
}
