//! Tests the report of runs: what it reads, compares with published results and prints.

#[path = "../support/browser.rs"]
mod browser;
mod curves;
mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use udass_raw::config::Config;

fn report(folder: &Path, args: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_udass-raw");
    Command::new(binary).arg("report").args(args).current_dir(folder).output().unwrap()
}

/// Returns the standard output of a report that must succeed.
fn told(folder: &Path, args: &[&str]) -> String {
    let output = report(folder, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let output = report(folder, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// The validation set of the published results, as an evaluation records it.
fn cityscapes() -> Value {
    json!({"sizes": [[2048, 1024]], "folders": ["frankfurt", "lindau", "munster"]})
}

/// IoU by train id: 0.5, 0.51, …
fn iou() -> Vec<f64> {
    (0..19).map(|class| 0.5 + 0.01 * f64::from(class)).collect()
}

struct Made {
    config: Value,
    iou: Value,
    images: u64,
    data: Value,
}

impl Made {
    fn new(preset: &str, method: Option<&str>) -> Made {
        let config = Config::load_with(preset, method, &[]).unwrap();
        Made {
            config: serde_json::to_value(config).unwrap(),
            iou: json!(iou()),
            images: 500,
            data: cityscapes(),
        }
    }

    /// Writes the log that `train` leaves: an early evaluation, the last one, and a line after it.
    fn folder(&self, path: PathBuf) {
        let zeros = vec![0.0; 19];
        let lines = [
            json!({"event": "start", "iteration": 0, "config": self.config}),
            json!({"event": "evaluation", "iteration": 1000, "IoU": zeros, "images": 1}),
            json!({"event": "evaluation", "iteration": 40000, "IoU": self.iou,
                "images": self.images, "data": self.data}),
            json!({"event": "iteration", "iteration": 40000}),
        ];
        fs::create_dir_all(&path).unwrap();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(path.join("log.jsonl"), text).unwrap();
    }

    /// Writes the file that `eval --json` writes.
    fn file(&self, path: PathBuf, training: Value) {
        let classes: Vec<Value> =
            self.iou.as_array().unwrap().iter().map(|iou| json!({"IoU": iou})).collect();
        let json = json!({"classes": classes, "images": self.images, "data": self.data,
            "iteration": 7, "configuration": self.config, "training": training});
        fs::write(path, json.to_string()).unwrap();
    }
}

/// Returns the cells of a table's row that starts with `name`.
fn row(text: &str, name: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.trim_start_matches(['|', ' ']).starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    let rest = line.trim_start_matches(['|', ' ']).strip_prefix(name).unwrap();
    rest.split([' ', '|']).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_run_as_published_stands_beside_its_row() {
    let folder = TempDir::new().unwrap();
    Made::new("gta_vit", None).folder(folder.path().join("runs/mine"));
    let text = told(folder.path(), &["runs/mine"]);
    // The run, the difference from QuadMix(ViT), and the six published ViT methods.
    let cells = |name: &str| row(&text, name).join(" ");
    assert_eq!(cells("road"), "50.0 −47.5 95.7 96.4 97.4 96.7 96.7 97.5");
    assert_eq!(cells("train"), "66.0 −16.3 65.1 75.9 80.4 63.6 72.5 82.3");
    assert_eq!(cells("mIoU"), "59.0 −17.1 68.3 73.8 75.9 70.3 73.6 76.1");
    // Every row says where it was published.
    assert!(text.contains("HRDA, MIC: table 2 of MIC (Hoyer et al., CVPR 2023)"), "{text}");
    assert!(text.contains("QuadMix(ViT): README of the code of image UDASS"), "{text}");
    for expected in [
        "GTA → Cityscapes\n",
        "mine (quadmix on mit_b5, 40000 iterations, runs/mine)\n",
        "mIoU 59.0, 17.1 below the published QuadMix(ViT) (76.1)\n",
        "validated on Cityscapes' 500 images of 2048x1024, as the published results were\n",
        "settings as in preset gta_vit\n",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(!text.contains("NOT the published"), "{text}");
}

#[test]
fn methods_and_networks_find_their_rows() {
    let cases = [
        ("gta_cnn", None, "below the published QuadMix(CNN) (66.8)"),
        ("source_only", None, "above the published Source (32.9)"),
        ("daformer", None, "below the published DAFormer (68.3)"),
        ("gta_vit", Some("mic"), "below the published MIC (75.9)"),
        ("hrda", None, "below the published HRDA (73.8)"),
        ("gta_cnn", Some("mic"), "no published result of mic with a CNN is on record"),
        ("dacs", None, "no published result of dacs with a CNN is on record"),
        (
            "gta_vit",
            Some("source_only"),
            "no published result of source_only with a ViT is on record",
        ),
    ];
    let folder = TempDir::new().unwrap();
    for (preset, method, expected) in cases {
        Made::new(preset, method).folder(folder.path().join("run"));
        let text = told(folder.path(), &["run"]);
        assert!(text.contains(expected), "{preset} {method:?}: {expected} in\n{text}");
    }
}

#[test]
fn synthia_has_two_means_and_dashes() {
    let folder = TempDir::new().unwrap();
    Made::new("syn_cnn", None).folder(folder.path().join("syn"));
    let text = told(folder.path(), &["syn", "--markdown", "a.md"]);
    assert_eq!(row(&text, "terrain")[..2], ["59.0", "–"]);
    assert!(row(&text, "terrain")[2..].iter().all(|cell| cell == "–"), "{text}");
    assert_eq!(row(&text, "wall")[..5], ["53.0", "+49.3", "9.2", "2.1", "–"], "BDM has none");
    let classes: [f64; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18].map(f64::from);
    let mean = 50.0 + classes.iter().sum::<f64>() / 16.0;
    assert_eq!(row(&text, "mIoU16")[0], format!("{mean:.1}"));
    let thirteen = 50.0 + (classes.iter().sum::<f64>() - 12.0) / 13.0;
    let expected = format!(
        "mIoU13 {thirteen:.1}, {:.1} below the published QuadMix(CNN) (72.3)",
        72.3 - thirteen
    );
    assert!(text.contains(&expected), "{expected} in\n{text}");
    assert!(text.contains("Freedom(CNN)†: the means of its classes are 56.2 and 62.5"), "{text}");
    assert!(!text.contains("Sepico(ViT)"), "no run is a ViT\n{text}");
    // The Markdown file contains all methods.
    let markdown = fs::read_to_string(folder.path().join("a.md")).unwrap();
    assert_eq!(row(&markdown, "bicycle").len(), 16);
    assert!(markdown.contains("Sepico(ViT)†"), "{markdown}");
}

#[test]
fn other_data_is_called_that() {
    let folder = TempDir::new().unwrap();
    let mut toy = Made::new("toy_vit", None);
    toy.images = 40;
    toy.data = json!({"sizes": [[256, 128]], "folders": ["dornfeld", "eulenburg"]});
    toy.folder(folder.path().join("toy"));
    let text = told(folder.path(), &["toy"]);
    assert!(
        text.contains(
            "NOT the data of the published benchmark: toy data, the generated world in data/toy; \
             40 validation images, not 500; validation images of 256x128, not 2048x1024; \
             validation images of dornfeld, eulenburg, not of frankfurt, lindau, munster\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("settings differ from preset gta_vit: network.backbone mit_b0 (mit_b5)"),
        "{text}"
    );

    // One change at a time to the published preset.
    let says = |change: &dyn Fn(&mut Made)| {
        let mut made = Made::new("gta_vit", None);
        change(&mut made);
        made.folder(folder.path().join("other"));
        let text = told(folder.path(), &["other"]);
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("NOT the data of the published benchmark: "));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert_eq!(says(&|made| made.images = 499), "499 validation images, not 500");
    let half = |made: &mut Made| made.data["sizes"] = json!([[2048, 1024], [1024, 512]]);
    assert_eq!(says(&half), "validation images of 1024x512, not 2048x1024");
    let ulm = |made: &mut Made| made.data["folders"] = json!(["frankfurt", "ulm"]);
    assert_eq!(says(&ulm), "validation images of ulm, not of frankfurt, lindau, munster");
    let old = |made: &mut Made| made.data = Value::Null;
    assert_eq!(says(&old), "the sizes of the validation images were not recorded");
    // A toy world generated for another preset is recognized by its marker file.
    fs::create_dir_all(folder.path().join("data/full")).unwrap();
    fs::write(folder.path().join("data/full/toy.json"), "{}").unwrap();
    let full = |made: &mut Made| made.config["source"]["root"] = json!("data/full/gta");
    assert_eq!(says(&full), "toy data, the generated world in data/full");
}

#[test]
fn other_settings_are_named_with_the_published_ones() {
    let folder = TempDir::new().unwrap();
    let mut made = Made::new("gta_vit", None);
    made.config["eval"]["resize"] = json!([1024, 512]);
    // Keys that only set paths and speed are ignored, and a single-precision value equals its
    // decimal notation.
    made.config["target"]["root"] = json!("/elsewhere");
    made.config["eval"]["batch"] = json!(4);
    made.config["weights"]["init"] = json!("/elsewhere/b5.safetensors");
    made.config["network"]["dropout"] = json!(0.1);
    made.folder(folder.path().join("a"));
    let text = told(folder.path(), &["a"]);
    let expected =
        "1 setting differs from preset gta_vit: eval.resize [1024, 512] ([2048, 1024])\n";
    assert!(text.contains(expected), "{text}");
    made.config["weights"]["init"] = json!("random");
    made.config["network"]["backbone"] = json!("mit_b0");
    made.folder(folder.path().join("a"));
    let text = told(folder.path(), &["a"]);
    let expected = "3 settings differ from preset gta_vit: network.backbone mit_b0 (mit_b5), \
                    eval.resize [1024, 512] ([2048, 1024]), weights.init random (ImageNet)\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_run_of_an_earlier_version_is_read_with_the_keys_that_it_had() {
    let folder = TempDir::new().unwrap();
    for (method, expected) in
        [("quadmix", "settings as in preset gta_vit\n"), ("mic", "below the published MIC (75.9)")]
    {
        let mut made = Made::new("gta_vit", None);
        let mut rename = |section: &str, new: &str, old: &str| {
            let section = made.config[section].as_object_mut().unwrap();
            let value = section.remove(new).unwrap();
            section.insert(old.into(), value);
        };
        for section in ["source", "target", "eval"] {
            rename(section, "resize", "fit");
        }
        rename("teacher", "ema_decay", "alpha");
        rename("optimizer", "param_groups", "rules");
        for rule in made.config["optimizer"]["rules"].as_array_mut().unwrap() {
            let (lr, decay) = (rule["lr_mult"].take(), rule["decay_mult"].take());
            *rule = json!({"contains": rule["contains"], "lr": lr, "decay": decay});
        }
        made.config["augment"].as_object_mut().unwrap().remove("jitter_prob");
        made.config["augment"]["jitter_threshold"] = json!(0.2f32);
        for section in ["teacher", "mask", "quadmix"] {
            made.config[section].as_object_mut().unwrap().remove("enabled");
        }
        made.config["method"] = json!(method);
        made.folder(folder.path().join("old"));
        let text = told(folder.path(), &["old"]);
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn a_result_file_is_a_run_too_and_its_checkpoint_knows_the_method() {
    let folder = TempDir::new().unwrap();
    let made = Made::new("gta_vit", None);
    made.file(folder.path().join("result.json"), Value::Null);
    let text = told(folder.path(), &["result.json"]);
    assert!(text.contains("result (quadmix on mit_b5, 7 iterations, result.json)\n"), "{text}");
    assert_eq!(row(&text, "road")[..2], ["50.0", "−47.5"]);
    let training = Made::new("daformer", None).config;
    made.file(folder.path().join("result.json"), training);
    let text = told(folder.path(), &["result.json"]);
    assert!(text.contains("below the published DAFormer (68.3)"), "{text}");
    // The window size differs in the evaluation only.
    assert!(text.contains("eval.window 1024 (0)"), "{text}");
}

#[test]
fn runs_stand_side_by_side_and_tasks_apart() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    Made::new("gta_vit", None).folder(at("a/run"));
    let mut second = Made::new("gta_vit", Some("mic"));
    second.iou[0] = Value::Null;
    second.folder(at("b/run"));
    Made::new("syn_vit", None).folder(at("syn"));
    let args = ["a/run", "b/run", "syn", "--html", "out/a.html", "--markdown", "a.md"];
    let text = told(folder.path(), &args);
    let (gta, syn) = text.split_once("SYNTHIA → Cityscapes").expect("two tables");
    // Both runs have the same name and are distinguished by their paths; the second has no value
    // for road.
    assert!(gta.contains("a/run") && gta.contains("b/run"), "{gta}");
    let road = ["50.0", "−47.5", "–", "–", "95.7", "96.4", "97.4", "96.7", "96.7", "97.5"];
    assert_eq!(row(gta, "road"), road);
    assert_eq!(row(syn, "road")[..2], ["50.0", "−38.1"]);

    let markdown = fs::read_to_string(at("a.md")).unwrap();
    assert!(markdown.contains("## GTA → Cityscapes") && markdown.contains("**a/run** (quadmix"));
    // Two runs with their differences, and all published methods.
    assert_eq!(row(&markdown, "sky").len(), 4 + 14);

    let page = fs::read_to_string(at("out/a.html")).unwrap();
    for expected in [
        "<h2>SYNTHIA → Cityscapes</h2>",
        "style=\"left: 97.5%\" title=\"QuadMix(ViT) 97.5\"",
        "style=\"width: 50.0%\"",
        "mIoU 59.0, 17.1 below the published QuadMix(ViT) (76.1)",
        "Freedom(CNN)†",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    // The page loads nothing from elsewhere.
    for foreign in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    // 19 classes for two runs of one task and one run of the other.
    assert_eq!(page.matches("class=\"fill\"").count(), 3 * 19);
    let tags = [
        "div", "table", "tr", "td", "p", "h2", "h3", "details", "span", "i", "figure", "svg",
        "text", "polyline",
    ];
    for tag in tags {
        let (open, close) =
            (page.matches(&format!("<{tag}>")).count(), page.matches(&format!("</{tag}>")).count());
        let open = open + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, close, "<{tag}>");
    }
}

#[test]
fn names_are_never_markup() {
    let folder = TempDir::new().unwrap();
    Made::new("gta_vit", None).folder(folder.path().join("<b>|*x*"));
    told(folder.path(), &["<b>|*x*", "--html", "a.html", "--markdown", "a.md"]);
    let page = fs::read_to_string(folder.path().join("a.html")).unwrap();
    assert!(page.contains("&lt;b&gt;|*x*") && !page.contains("<b>|"), "{page}");
    let markdown = fs::read_to_string(folder.path().join("a.md")).unwrap();
    assert!(markdown.contains(r"\<b\>\|\*x\*"), "{markdown}");
}

#[test]
fn a_task_without_published_results_is_shown_alone() {
    let folder = TempDir::new().unwrap();
    let mut made = Made::new("gta_vit", None);
    made.config["target"]["layout"] = json!("acdc");
    made.folder(folder.path().join("a"));
    let text = told(folder.path(), &["a"]);
    assert_eq!(row(&text, "road"), ["50.0"]);
    assert!(
        text.contains("mIoU 59.0; no published results of gta → acdc are on record\n"),
        "{text}"
    );
    assert!(text.contains("the target is acdc, not Cityscapes"), "{text}");
}

#[test]
fn what_is_no_run_is_told_with_file_and_key() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    assert!(refused(folder.path(), &["empty"]).starts_with("error: empty/log.jsonl: cannot read"));
    assert!(refused(folder.path(), &["none.json"]).starts_with("error: none.json: cannot read"));
    fs::write(at("torn.json"), "{\"classes\": ").unwrap();
    assert!(
        refused(folder.path(), &["torn.json"]).starts_with("error: torn.json: not the output of")
    );
    fs::write(at("old.json"), "{\"classes\": []}").unwrap();
    let text = refused(folder.path(), &["old.json"]);
    assert!(text.starts_with("error: old.json: has no `configuration`"), "{text}");

    let made = Made::new("gta_vit", None);
    let log = |lines: &[Value]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::create_dir_all(at("run")).unwrap();
        fs::write(at("run/log.jsonl"), text).unwrap();
        refused(folder.path(), &["run"])
    };
    let start = json!({"event": "start", "config": made.config});
    let text = log(std::slice::from_ref(&start));
    assert!(
        text.starts_with("error: run/log.jsonl: contains neither an iteration nor an evaluation"),
        "{text}"
    );
    let evaluation = json!({"event": "evaluation", "IoU": iou(), "images": 500});
    let text = log(std::slice::from_ref(&evaluation));
    assert!(text.contains("run/log.jsonl: has no `start` line"), "{text}");
    let text = log(&[json!({"event": "start", "config": {"method": "mic"}}), evaluation]);
    assert!(text.contains("run/log.jsonl: the configuration: missing field `source`"), "{text}");
    let text = log(&[start.clone(), json!({"event": "evaluation", "IoU": [0.5], "images": 1})]);
    let expected = "run/log.jsonl: `IoU` has 1 classes, and the configuration 19";
    assert!(text.contains(expected), "{text}");
    let text = log(&[start, json!({"event": "evaluation", "IoU": iou()})]);
    assert!(text.contains("run/log.jsonl: the evaluation: missing field `images`"), "{text}");
    // Nothing is written when there is an error.
    refused(folder.path(), &["run", "--html", "a.html"]);
    assert!(!at("a.html").exists());
}
