//! Tests runs on custom data: arbitrary classes, sizes, files and batches.

use std::fs;
use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;
use udass_raw::config::Config;
use udass_raw::data::loader::Loader;
use udass_raw::device::Device;
use udass_raw::run::train::initial_state;
use udass_raw::uda::inputs::StepInputs;
use udass_raw::uda::trace::Trace;

use crate::support::{command, events, run_in, settings, stderr, text, world};

/// Sea, land and two rare classes, by the colors of the labels.
const COLORS: [[u8; 3]; 4] = [[0, 0, 255], [0, 128, 0], [255, 0, 0], [250, 250, 0]];
/// A configuration as a user would write it, with the sizes of the other runs.
const DESCRIPTION: &str = r##"
base = "toy_vit"

[source]
layout = "files"
resize = [96, 96]
[source.files]
images = "photos/**/*.jpg"
labels = "marks/**/*_mark.png"
ids = [["#0000ff"], ["#008000"], ["#ff0000"], ["#fafa00"]]
ignore = ["#000000"]

[target]
layout = "files"
resize = [128, 128]
[target.files]
images = "unseen/*.png"
val_images = "seen/*.png"
val_labels = "numbers/*.png"
ids = [[10], [20, 21], [30], [40]]
ignore = [0]

[dataset]
names = ["sea", "land", "buoy", "boat"]
colors = ["#0000ff", "#008000", "#ff0000", "#fafa00"]

[network]
classes = 4
channels = 16
[network.hrda]
detail_crop = 32

[data]
crop = 64
toy = ""
[rare_class_sampling]
min_pixels = 2
[pseudo_label]
threshold = 0.3
confident = 0.3
margins = [0, 0, 0, 0]
[quadmix]
start = 1
classes = [2, 3]
min_pixels = 0
resize = [96, 64]
[schedule]
warmup = 1
[run]
max_iters = 2
eval_interval = 2
[eval]
resize = [128, 128]
window = 64
stride = 32
"##;

struct Mine {
    folder: TempDir,
}

/// The class of a pixel: sea below, land above, each of the other two in a block of its own.
fn class(x: u32, y: u32, [width, height]: [u32; 2], number: u32) -> usize {
    match (x * 8 / width, y * 8 / height) {
        (2..=3, 2..=4) => 2,
        (5..=6, 4..=5) => 3,
        (_, row) if row > 3 + number % 2 => 0,
        _ => 1,
    }
}

fn save(path: &Path, size: [u32; 2], pixel: impl Fn(u32, u32) -> [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture = RgbImage::from_fn(size[0], size[1], |x, y| Rgb(pixel(x, y)));
    let format = ImageFormat::from_path(path).unwrap();
    picture.save_with_format(path, format).unwrap();
}

impl Mine {
    /// Images of many shapes: upright, wide, smaller than a crop, larger than `fit`.
    fn new() -> Mine {
        let mine = Mine { folder: tempfile::tempdir().unwrap() };
        let sizes = [[96, 64], [40, 120], [50, 30], [200, 90], [64, 64]];
        for (number, &size) in (0..).zip(&sizes) {
            let place = ["north", "south/far"][number as usize % 2];
            let [photo, unseen] = [30, 90].map(|light: u32| {
                move |x, y| COLORS[class(x, y, size, number)].map(|c| (c / 2) + light as u8)
            });
            save(&mine.path(&format!("a/photos/{place}/{number}.jpg")), size, photo);
            save(&mine.path(&format!("a/marks/{place}/{number}_mark.png")), size, |x, y| {
                if x == 0 { [0; 3] } else { COLORS[class(x, y, size, number)] }
            });
            save(&mine.path(&format!("b/unseen/{number}.png")), size, unseen);
            save(&mine.path(&format!("b/seen/{number}.png")), size, unseen);
            let ids = (0..size[0] * size[1]).map(|i| {
                [10, 20 + number as u8 % 2, 30, 40][class(i % size[0], i / size[0], size, number)]
            });
            let label = image::GrayImage::from_raw(size[0], size[1], ids.collect()).unwrap();
            let path = mine.path(&format!("b/numbers/{number}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            label.save(path).unwrap();
        }
        let roots = [("[source]", "a"), ("[target]", "b")].map(|(section, name)| {
            let root = mine.path(name);
            (section, format!("{section}\nroot = '{}'", root.display()))
        });
        let mut description = DESCRIPTION.to_owned();
        for (section, with_root) in roots {
            description = description.replace(section, &with_root);
        }
        fs::write(mine.path("mine.toml"), description).unwrap();
        mine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `udass-raw WORDS` in the folder; returns success, standard output and standard error.
    fn run(&self, words: &[&str]) -> (bool, String, String) {
        let output = run_in(self.folder.path(), words);
        let printed = String::from_utf8(output.stdout.clone()).unwrap();
        (output.status.success(), printed, stderr(&output))
    }

    #[track_caller]
    fn succeed(&self, words: &[&str]) -> String {
        let (good, printed, said) = self.run(words);
        assert!(good, "{words:?}: {said}");
        printed
    }

    #[track_caller]
    fn refused(&self, words: &[&str], parts: &[&str]) {
        let (good, _, said) = self.run(words);
        assert!(!good, "{words:?} went through");
        for part in parts {
            assert!(said.contains(part), "{part:?} in: {said}");
        }
    }
}

#[test]
fn any_folders_any_classes_any_sizes() {
    let mine = Mine::new();
    mine.refused(&["train", "mine.toml"], &["label_values.json", "udass-raw prepare files"]);
    mine.succeed(&["prepare", "files", "mine.toml"]);
    let counted = fs::read_to_string(mine.path("a/samples_with_class.json")).unwrap();
    let counted: serde_json::Value = serde_json::from_str(&counted).unwrap();
    assert_eq!(counted.as_object().unwrap().len(), 4, "all four classes occur");
    let table = mine.succeed(&["train", "mine.toml"]);
    for name in ["sea", "land", "buoy", "boat", "mIoU"] {
        assert!(table.contains(name), "{name} in\n{table}");
    }
    assert!(!table.contains("road") && !table.contains("mIoU16"), "{table}");
    let out = mine.path("runs/mine");
    let log = events(&out, "evaluation");
    assert_eq!(log[0]["images"], 5);
    assert_eq!(log[0]["IoU"].as_array().unwrap().len(), 4);
    let losses = &events(&out, "iteration")[1]["losses"];
    assert!(losses["mix_tst.decode.loss_seg"].as_f64().unwrap() > 0.0, "{losses}");

    let json = mine.path("result.json");
    let words = ["eval", "mine.toml", "--checkpoint", "runs/mine", "--json", text(&json)];
    mine.succeed(&words);
    let result: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(result["classes"][2]["name"], "buoy");
    assert_eq!(result["mIoU"], log[0]["mIoU"]);
    // Every pixel of every image is labeled, so every pixel counts.
    assert_eq!(result["pixels"], 96 * 64 + 40 * 120 + 50 * 30 + 200 * 90 + 64 * 64);
    let images = ["b/seen/1.png", "a/photos/north/0.jpg"];
    let words = ["predict", "mine.toml", "--checkpoint", "runs/mine", "--out", "seen"];
    mine.succeed(&[&words[..], &images[..]].concat());
    let prediction = image::open(mine.path("seen/1.png")).unwrap().into_luma8();
    assert_eq!(prediction.dimensions(), (40, 120));
    assert!(prediction.pixels().all(|id| id.0[0] < 4));
}

#[test]
fn what_does_not_fit_the_description_is_named() {
    let mine = Mine::new();
    let with = |set: &str, parts: &[&str]| {
        mine.refused(&["train", "mine.toml", "--set", set], parts);
    };
    with(
        "network.classes=5",
        &["network.classes", "expected 4, the length of dataset.names, got 5"],
    );
    with("source.files.ids=[[1], [2]]", &["source.files.ids", "each of 4 classes, got 2"]);
    with("source.files.ids=[[1], [2], [3], [1]]", &["source.files.ids", "1 twice"]);
    with("source.files.ids=[[1], [2], [3], [\"#000001\"]]", &["either ids or colors"]);
    with("source.files.ids=[[1], [2], [3], [70000]]", &["source.files.ids", "70000"]);
    with("source.files.ids=[[\"blue\"], [], [], []]", &["source.files.ids", "blue", "#804080"]);
    with("target.files.ignore=[20]", &["target.files.ignore", "no class, got 20"]);
    with("target.files.images=", &["target.files.images", "a glob below the root"]);
    with("target.files.val_labels=", &["target.files.val_labels", "a glob below the root"]);
    with("source.files.labels=marks/*/*/*.png", &["source.files.labels", "2, got 3"]);
    with("dataset.names=[\"a\", \"b\", \"a\", \"c\"]", &["dataset.names", "\"a\""]);
    with("dataset.colors=[\"#000000\"]", &["dataset.colors", "4, one for each class"]);
    with("quadmix.classes=[3, 4]", &["quadmix.classes", "below 4"]);
    with("source.layout=gta", &["network.classes", "expected 19"]);
    with("source.files.images=photos/**/*.tif", &["no file matches files.images"]);
    with("target.files.val_images=shown/*.png", &["shown", "files.val_images", "missing"]);

    mine.refused(&["prepare", "files", "toy_vit"], &["source.layout is \"gta\"", "prepare gta"]);
    mine.succeed(&["prepare", "files", "mine.toml"]);
    // The ids differ from those that were counted.
    let more = "source.files.ignore=[\"#000000\", \"#111111\"]";
    mine.refused(&["train", "mine.toml", "--set", more], &["with other `ids`"]);
    let label = mine.path("b/numbers/3.png");
    fs::rename(&label, mine.path("b/3.png")).unwrap();
    let words = ["train", "mine.toml"];
    mine.refused(&words, &["b/seen/3.png", "no label", "numbers/3.png"]);
    fs::rename(mine.path("b/3.png"), &label).unwrap();
    let mark = mine.path("a/marks/north/2_mark.png");
    save(&mark, [50, 30], |_, _| [7, 7, 7]);
    let parts = [text(&mark), "color \"#070707\" at x 0, y 0", "files.ignore"];
    mine.refused(&["prepare", "files", "mine.toml"], &parts);
    save(&mark, [50, 31], |_, _| [0, 0, 0]);
    // A label of another size than its image is told, and a class that is nowhere too.
    let (good, printed, said) = mine.run(&["prepare", "files", "mine.toml"]);
    assert!(good, "{said}");
    assert!(
        said.contains("differ in size from their image") && said.contains("2_mark.png"),
        "{said}"
    );
    assert!(printed.contains("pixels") && printed.contains("images"), "{printed}");
}

/// Returns every loss of two iterations, the second with QuadMix.
fn losses(config: &Config) -> Vec<(String, f32)> {
    let device = Device::host(2).unwrap();
    let mut training = initial_state::build(config, &device, None).unwrap();
    let mut loader = Loader::new(config, 0).unwrap();
    let mut all = Vec::new();
    for iteration in 0..2 {
        let report = training.step(&loader.next().unwrap(), iteration).unwrap();
        assert!(!report.failed, "{:?}", report.terms);
        all.extend(report.terms.into_iter().filter(|(name, _)| name.ends_with("loss_seg")));
    }
    all
}

fn toy(more: &[&str]) -> Config {
    let more = more.iter().map(|set| set.to_string());
    let own = ["quadmix.start=1", "device.threads=2"].map(String::from);
    let sets: Vec<String> = settings().into_iter().chain(own).chain(more).collect();
    Config::load("toy_vit", &sets).unwrap()
}

#[test]
fn batches_of_one_two_and_three_mix_and_mask() {
    for batch in 1..=3 {
        for masked in ["target", "source", "both"] {
            let sets = [format!("data.batch={batch}"), format!("mask.images={masked}")];
            // A fully masked patch has no variance, and its layer norms make an untrained network's
            // gradient overflow. Blocks of one pixel leave some pixels of every patch visible.
            let losses = losses(&toy(&[&sets[0], &sets[1], "mask.block=1"]));
            let seen = |name: &str| losses.iter().filter(|(n, _)| n == name).count();
            assert_eq!(seen("masked.decode.loss_seg"), 2, "{sets:?}");
            assert_eq!(seen("mix_tst.decode.hr.loss_seg"), 1, "{sets:?}");
            // An untrained network may be confident about no pixel; the pseudo-labels then have
            // weight 0.
            let fine = |(name, loss): &(String, f32)| {
                loss.is_finite() && (*loss > 0.0 || name.starts_with("masked"))
            };
            assert!(losses.iter().all(fine), "{sets:?}: {losses:?}");
        }
    }
}

#[test]
fn networks_have_as_many_outputs_as_there_are_classes() {
    for classes in [31, 254] {
        let mut config = toy(&[]);
        config.network.classes = classes;
        let losses = losses(&config);
        // An untrained network's loss is the logarithm of the number of classes, times HRDA's
        // share.
        let first = losses[0].1 / (1.0 - config.network.hrda.detail_loss);
        let expected = (classes as f32).ln();
        assert!((first - expected).abs() < 0.25 * expected, "{classes}: {first}");
        assert!(losses.iter().all(|(_, loss)| loss.is_finite()), "{classes}");
    }
}

#[test]
fn masked_images_of_both_domains_are_the_first_of_each() {
    // Nothing is masked or augmented, so the masked pass sees the images as loaded.
    for (batch, of_source) in [(1, 0), (2, 1), (3, 1)] {
        let batch_set = format!("data.batch={batch}");
        let own = ["mask.images=both", "mask.augment=false", "mask.ratio=0.0", &batch_set];
        let config = toy(&own);
        let device = Device::host(2).unwrap();
        let mut training = initial_state::build(&config, &device, None).unwrap();
        let mut loader = Loader::new(&config, 0).unwrap();
        training.load(&loader.next().unwrap()).unwrap();
        let mut seen = std::collections::HashMap::new();
        let mut keep = |name: &str, tensor: &udass_raw::tensor::Tensor| {
            let bytes = match name {
                name if name.ends_with("label") => {
                    device.read::<u8>(tensor)?.into_iter().map(f32::from).collect()
                }
                _ => device.read_f32(tensor)?,
            };
            seen.insert(name.to_owned(), bytes);
            Ok(())
        };
        training.step_with(&StepInputs::draw(&config, 0, 0), Trace::to(&mut keep)).unwrap();
        let target = device.read_f32(&training.batch.current().target).unwrap();
        let expected = |source: &[f32], target: &[f32], each: usize| {
            let cut = of_source * each;
            [&source[..cut], &target[..(batch - of_source) * each]].concat()
        };
        let pixels = 64 * 64;
        assert_eq!(seen["masked.img"], expected(&seen["src.img"], &target, 3 * pixels));
        let label = expected(&seen["src.label"], &seen["teacher/label"], pixels);
        assert_eq!(seen["masked.label"], label);
        let ones = vec![1.0; batch * pixels];
        assert_eq!(seen["masked.weight"], expected(&ones, &seen["teacher/weight"], pixels));
        assert!(seen["teacher/weight"].iter().any(|&w| w != 1.0));
    }
}

#[test]
fn a_target_of_mixed_sizes_trains_and_is_evaluated() {
    // Replaces images of the toy world with one upright and one smaller than a crop.
    let folder = tempfile::tempdir().unwrap();
    crate::support::copy_folder(world(), folder.path());
    let below = folder.path().join("cityscapes");
    for split in ["train", "val"] {
        for (number, size) in [[40, 90], [30, 20], [300, 100]].into_iter().enumerate() {
            let place = format!("{split}/zell/zell_{number:06}_000019");
            let image = below.join("leftImg8bit").join(format!("{place}_leftImg8bit.png"));
            save(&image, size, |x, y| [x as u8, y as u8, 9]);
            let label = below.join("gtFine").join(format!("{place}_gtFine_labelIds.png"));
            fs::create_dir_all(label.parent().unwrap()).unwrap();
            image::GrayImage::from_pixel(size[0], size[1], image::Luma([7])).save(label).unwrap();
        }
    }
    let root = format!("target.root={}", below.display());
    let out = folder.path().join("run");
    let sets = ["--set", &root, "--set", "run.eval_interval=6", "--set", "quadmix.start=1"];
    let args = [&sets[..], &["--max-iters", "6", "--out", text(&out)]].concat();
    let output = command("train", &args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let log = events(&out, "evaluation");
    assert_eq!(log[0]["images"], 4 + 3);
    assert!(log[0]["mIoU"].as_f64().unwrap() > 0.0);
}
