//! Tests unusable input: one message names it and suggests a fix, and no data is lost.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use safetensors::Dtype;
use tempfile::TempDir;

use crate::support::{
    Contents, ITERATIONS, checkpoint, command_on, copy_folder, events, folder, reference,
    reference_checkpoint, refused, run, stderr, succeed, text, world,
};

/// A copy of the world to damage, and a folder for runs.
struct Damaged {
    folder: TempDir,
}

impl Damaged {
    fn new() -> Damaged {
        let folder = folder();
        copy_folder(world(), &folder.path().join("world"));
        Damaged { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("world").join(name)
    }

    /// Returns the files below a folder whose names end with `ending`, sorted.
    fn files(&self, below: &str, ending: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.path(below)];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if text(&path).ends_with(ending) {
                    found.push(path);
                }
            }
        }
        found.sort();
        assert!(!found.is_empty(), "{below} {ending}");
        found
    }

    fn run(&self, command: &str, args: &[&str]) -> Output {
        command_on(&self.folder.path().join("world"), command, args).output().unwrap()
    }

    fn train(&self) -> Output {
        let out = self.folder.path().join("run");
        self.run("train", &["--max-iters", "1", "--out", text(&out)])
    }
}

/// A gray PNG of a single value.
fn plane(width: u32, height: u32, value: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let data = vec![value; (width * height) as usize];
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
    bytes
}

// ---- datasets

#[test]
fn a_missing_data_set_says_how_to_get_it_and_leaves_no_run_behind() {
    let damaged = Damaged::new();
    let gta = damaged.path("gta");
    let aside = damaged.path("aside");
    fs::rename(&gta, &aside).unwrap();
    let images = gta.join("images");
    refused(
        &damaged.train(),
        &[text(&images), "missing", "download.visinf.tu-darmstadt.de", "udass-raw toy"],
    );
    fs::rename(&aside, &gta).unwrap();
    fs::rename(damaged.path("cityscapes"), &aside).unwrap();
    refused(&damaged.train(), &["leftImg8bit", "missing", "www.cityscapes-dataset.com"]);
    let eval = ["--checkpoint", text(reference())];
    refused(&damaged.run("eval", &eval), &["leftImg8bit", "missing", "udass-raw toy"]);
    // Once the data is there, the same command works: no half-created run gets in its way.
    fs::rename(&aside, damaged.path("cityscapes")).unwrap();
    let output = damaged.train();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_data_set_that_was_not_prepared_names_the_command() {
    let damaged = Damaged::new();
    let file = damaged.path("gta/samples_with_class.json");
    fs::remove_file(&file).unwrap();
    refused(&damaged.train(), &[text(&file), "run `udass-raw prepare` on this dataset first"]);
    fs::write(&file, "[1, 2").unwrap();
    refused(&damaged.train(), &[text(&file), "JSON", "run `udass-raw prepare` again"]);
}

#[test]
fn an_image_without_its_label_is_named() {
    let damaged = Damaged::new();
    let label = &damaged.files("gta/labels", "_labelTrainIds.png")[3];
    fs::remove_file(label).unwrap();
    let raw = text(label).replace("_labelTrainIds", "");
    fs::remove_file(&raw).unwrap();
    let image = raw.replace("/labels/", "/images/");
    refused(&damaged.train(), &[&image, "no label", text(label), &raw]);

    let label = &damaged.files("cityscapes/gtFine/val", "_labelIds.png")[1];
    fs::remove_file(label).unwrap();
    fs::remove_file(text(label).replace("_labelIds", "_labelTrainIds")).unwrap();
    let eval = ["--checkpoint", text(reference())];
    refused(&damaged.run("eval", &eval), &["no label", text(label), "leftImg8bit.png"]);
}

#[test]
fn labels_of_another_size_or_with_unknown_ids_are_named() {
    let damaged = Damaged::new();
    for label in damaged.files("gta/labels", "_labelTrainIds.png") {
        fs::write(label, plane(120, 66, 77)).unwrap();
    }
    refused(
        &damaged.train(),
        &["_labelTrainIds.png", "train id 77 at x 0, y 0", "expected 0 to 18, or 255"],
    );
    let label = &damaged.files("cityscapes/gtFine/val", "_labelTrainIds.png")[0];
    fs::write(label, plane(128, 64, 19)).unwrap();
    let eval = ["--checkpoint", text(reference())];
    refused(&damaged.run("eval", &eval), &[text(label), "train id 19", "out of range"]);
    // Label id 11 has the train id 2.
    fs::write(label, plane(64, 32, 2)).unwrap();
    fs::write(text(label).replace("_labelTrainIds", "_labelIds"), plane(64, 32, 11)).unwrap();
    let expected = [text(label), "this label is 64x32", "its image", "is 128x64", "replace"];
    refused(&damaged.run("eval", &eval), &expected);
}

#[test]
fn problems_of_data_and_weights_are_listed_at_once() {
    let damaged = Damaged::new();
    let label = &damaged.files("gta/labels", "_labelTrainIds.png")[3];
    fs::remove_file(label).unwrap();
    fs::remove_file(text(label).replace("_labelTrainIds", "")).unwrap();
    let val = &damaged.files("cityscapes/gtFine/val", "_labelIds.png")[1];
    fs::remove_file(val).unwrap();
    fs::remove_file(text(val).replace("_labelIds", "_labelTrainIds")).unwrap();
    let more = ["weights.init=nowhere.pth", "run.eval_interval=1"];
    let args = more.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>();
    let output = damaged.run("train", &[&args[..], &["--max-iters", "1"]].concat());
    refused(&output, &["3 problems", "nowhere.pth", text(label), text(val)]);
}

#[test]
fn truncated_and_foreign_pictures_are_named() {
    let damaged = Damaged::new();
    let images = damaged.files("gta/images", ".png");
    for image in &images {
        let bytes = fs::read(image).unwrap();
        fs::write(image, &bytes[..bytes.len() / 8]).unwrap();
    }
    refused(&damaged.train(), &["gta/images/", "truncated", "copy or download it again"]);
    for image in &images {
        fs::write(image, "<html>404</html>").unwrap();
    }
    refused(&damaged.train(), &["gta/images/", "not a PNG or JPEG image"]);
    let image = &damaged.files("cityscapes/leftImg8bit/val", ".png")[2];
    let bytes = fs::read(image).unwrap();
    fs::write(image, &bytes[..bytes.len() - 20]).unwrap();
    let eval = ["--checkpoint", text(reference())];
    refused(&damaged.run("eval", &eval), &[text(image), "truncated"]);
}

#[test]
fn a_run_that_ended_before_its_first_checkpoint_is_in_nobodys_way() {
    let damaged = Damaged::new();
    let images = damaged.files("gta/images", ".png");
    let whole: Vec<Vec<u8>> = images.iter().map(|image| fs::read(image).unwrap()).collect();
    images.iter().for_each(|image| fs::write(image, "").unwrap());
    refused(&damaged.train(), &["gta/images/"]);
    let out = damaged.folder.path().join("run");
    assert_eq!(events(&out, "start").len(), 1);
    images.iter().zip(whole).for_each(|(image, bytes)| fs::write(image, bytes).unwrap());
    let output = damaged.train();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!((events(&out, "start").len(), events(&out, "iteration").len()), (1, 1));
    assert!(out.join("log.jsonl.old").exists(), "not even its log is lost");
}

// ---- weights and checkpoints

#[test]
fn missing_imagenet_weights_say_where_they_come_from() {
    let folder = folder();
    let args = ["--set", "weights.init=weights/nowhere.safetensors", "--out", text(folder.path())];
    refused(
        &run("train", &args),
        &["weights.init", "weights/nowhere.safetensors", "ImageNet", "weights.init=random"],
    );
}

#[test]
fn tensors_that_do_not_fit_are_listed_by_name() {
    let folder = folder();
    let path = folder.path().join("other.safetensors");
    let mut state = Contents::of(&reference_checkpoint());
    state.tensors.retain(|name, _| name.starts_with("model."));
    let lost = state.tensors.remove("model.backbone.norm2.weight").unwrap();
    state.tensors.insert("model.backbone.norm9.weight".into(), lost);
    let bias = state.tensors.get_mut("model.backbone.norm1.bias").unwrap();
    *bias = (Dtype::F32, vec![7], vec![0; 28]);
    state.write(&path);
    let parts = [
        text(&path),
        "1 tensor missing: backbone.norm2.weight",
        "1 tensor of the wrong shape: backbone.norm1.bias is [7], not [32]",
        "1 tensor extra: backbone.norm9.weight",
    ];
    refused(&run("eval", &["--checkpoint", text(&path)]), &parts);
    let out = folder.path().join("run");
    refused(&run("train", &["--checkpoint", text(&path), "--out", text(&out)]), &parts);
    assert!(!out.exists(), "a refused start leaves nothing");

    // A teacher alone, a backbone alone, and what is left of training.
    let write = |keep: &dyn Fn(&str) -> Option<String>| {
        let mut some = Contents::of(&reference_checkpoint());
        let tensors = std::mem::take(&mut some.tensors).into_iter();
        some.tensors = tensors.filter_map(|(name, t)| Some((keep(&name)?, t))).collect();
        some.strings.clear();
        some.write(&path);
    };
    let eval = |more: &[&str]| run("eval", &[&["--checkpoint", text(&path)], more].concat());
    write(&|name| name.starts_with("ema_model.").then(|| name.into()));
    refused(&eval(&[]), &["holds a teacher alone", "--weights teacher"]);
    assert!(eval(&["--weights", "teacher"]).status.success());
    write(&|name| name.strip_prefix("model.backbone.").map(Into::into));
    refused(&eval(&[]), &["holds a backbone alone", "weights.init"]);
    write(&|name| Some(format!("module.{}", name.strip_prefix("model.")?)));
    assert!(eval(&[]).status.success(), "{}", stderr(&eval(&[])));
    write(&|name| {
        let name = name.strip_prefix("model.")?;
        Some(name.replace("decode_head.scale_attention.fuse_layer", "auxiliary_head.x"))
    });
    refused(&eval(&[]), &["tensors missing", "decode_head.scale_attention.fuse_layer"]);
    assert!(!stderr(&eval(&[])).contains("extra"), "an auxiliary head is left out");

    // For a different network, only a few of the many mismatched names are listed.
    let args = ["--checkpoint", text(reference()), "--set", "network.backbone=mit_b1"];
    let output = run("eval", &args);
    refused(&output, &["does not match this network", "of the wrong shape", "more"]);
    assert!(stderr(&output).len() < 4000, "{}", stderr(&output));
}

#[test]
fn files_that_are_not_whole_are_refused() {
    let folder = folder();
    let path = folder.path().join("weights.safetensors");
    let whole = fs::read(reference_checkpoint()).unwrap();
    let mut huge = whole[..4096].to_vec();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let cases: [&[u8]; 4] = [
        b"this is no file of tensors, but it is longer than a header's length",
        &whole[..whole.len() - 1],
        &whole[..1000],
        &huge,
    ];
    for bytes in cases {
        fs::write(&path, bytes).unwrap();
        let output = run("eval", &["--checkpoint", text(&path)]);
        refused(&output, &[text(&path), "neither a complete safetensors file"]);
    }
    // What else ends up under such a name is called by its own.
    for (bytes, what) in [
        (&b""[..], "is empty"),
        (b"{}", "JSON"),
        (b"<!DOCTYPE html><html><body>Virus scan warning", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ] {
        fs::write(&path, bytes).unwrap();
        refused(&run("eval", &["--checkpoint", text(&path)]), &[text(&path), what]);
    }
    let missing = folder.path().join("missing.safetensors");
    refused(&run("eval", &["--checkpoint", text(&missing)]), &[text(&missing), "cannot open"]);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let output = run("eval", &["--checkpoint", text(&empty)]);
    refused(&output, &[text(&empty), "contains no checkpoint"]);
}

#[test]
fn what_cannot_be_resumed_is_told() {
    let folder = folder();
    let out = folder.path().join("run");
    let resume = || run("train", &["--resume", "--max-iters", "9", "--out", text(&out)]);
    refused(&resume(), &[text(&out)]);
    assert!(!out.exists());
    fs::create_dir(&out).unwrap();
    refused(&resume(), &[text(&out), "no checkpoint to resume", "without --resume"]);

    let whole = Contents::of(&reference_checkpoint());
    let path = checkpoint(&out, ITERATIONS);
    let mut weights = whole.clone();
    weights.tensors.retain(|name, _| name.starts_with("model."));
    weights.strings.clear();
    weights.write(&path);
    refused(&resume(), &[text(&path), "is not a checkpoint of a run", "--checkpoint"]);

    for lost in [
        "optimizer.exp_avg.backbone.norm2.bias",
        "ema_model.decode_head.head.conv_seg.weight",
        "templates.confident",
    ] {
        let mut state = whole.clone();
        state.tensors.remove(lost).unwrap();
        state.write(&path);
        let name = lost.strip_prefix("ema_model.").unwrap_or(lost);
        refused(&resume(), &[text(&path), name]);
    }
    let mut state = whole.clone();
    let moment = "optimizer.exp_avg_sq.backbone.norm2.bias";
    *state.tensors.get_mut(moment).unwrap() = (Dtype::F32, vec![3], vec![0; 12]);
    state.write(&path);
    refused(&resume(), &[text(&path), moment, "[3]", "[64]"]);
    assert!(!out.join("log.jsonl").exists(), "nothing was begun");
    // Once repaired, the run resumes.
    whole.write(&path);
    succeed("train", &["--resume", "--max-iters", "9", "--out", text(&out)]);
}

#[test]
fn a_folder_that_holds_a_run_is_not_written_over() {
    let log = reference().join("log.jsonl");
    let (before, state) = (fs::read(&log).unwrap(), fs::read(reference_checkpoint()).unwrap());
    let output = run("train", &["--max-iters", "2", "--out", text(reference())]);
    refused(&output, &[text(&log), "already contains a run", "--resume", "--out"]);
    assert!(before == fs::read(&log).unwrap());
    assert!(state == fs::read(reference_checkpoint()).unwrap());
}

// ---- devices and numbers

#[test]
fn a_device_that_is_not_there_is_told() {
    let folder = folder();
    let output = run("train", &["--device", "cuda", "--out", text(folder.path())]);
    refused(&output, &["cuda", "host"]);
    assert!(events(folder.path(), "start").is_empty());
}

#[test]
fn a_number_that_is_not_finite_stops_the_run_and_loses_nothing() {
    let folder = folder();
    let out = folder.path().join("run");
    let path = checkpoint(&out, ITERATIONS);
    let mut state = Contents::of(&reference_checkpoint());
    // What is normalized leaves the range of single precision, and its sum is no number.
    let name = "model.decode_head.head.fuse_layer.bottleneck.bn.weight";
    (0..state.tensors[name].1[0]).for_each(|at| state.put(name, at, f32::MAX));
    state.write(&path);
    let before = fs::read(&path).unwrap();

    let output = run("train", &["--resume", "--max-iters", "20", "--out", text(&out)]);
    let dump = out.join("not_finite/iteration_000008.safetensors");
    refused(
        &output,
        &[
            "iteration 8: ",
            "decode.loss_seg",
            "is not finite",
            "images: ",
            "gta/images/",
            "leftImg8bit/train/",
            &format!("udass-raw replay {}", dump.display()),
        ],
    );
    assert!(before == fs::read(&path).unwrap(), "the checkpoint changed");
    assert!(events(&out, "iteration").is_empty(), "the iteration was logged");
    // The previous state is kept together with the batch, for a replay that needs no data and fails
    // in the same way.
    let (kept, whole) = (Contents::of(&dump), Contents::of(&path));
    assert!(whole.tensors.iter().all(|(name, tensor)| kept.tensors[name] == *tensor));
    let binary = env!("CARGO_BIN_EXE_udass-raw");
    let replay = |file: &PathBuf| {
        std::process::Command::new(binary).args(["replay", text(file)]).output().unwrap()
    };
    let again = replay(&dump);
    let told = String::from_utf8_lossy(&again.stdout).into_owned() + &stderr(&again);
    assert!(again.status.success(), "{told}");
    let names = ["iteration 8", "decode.loss_seg NaN", "backbone.patch_embed1.proj.weight"];
    for part in names.into_iter().chain(["not finite, as in the run"]) {
        assert!(told.contains(part), "{part} in:\n{told}");
    }
    refused(&replay(&reference_checkpoint()), &["no iteration to replay"]);
}

/// All losses are finite, but their gradient is not: layer norms of fully masked patches (no bias,
/// no variance) each multiply it by 1000 in an untrained network.
#[test]
fn an_infinite_gradient_below_finite_losses_stops_the_run() {
    let folder = folder();
    let out = folder.path().join("run");
    // An untrained transformer sees zeros alone; its layer norms multiply gradients without end.
    let sets = ["data.batch=3", "pseudo_label.threshold=0.0", "mask.ratio=1.0"];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let args: Vec<&str> = sets.chain(["--max-iters", "2", "--out", text(&out)]).collect();
    refused(
        &run("train", &args),
        &["iteration 0: ", "gradient", "is not finite", "udass-raw replay"],
    );
    assert!(events(&out, "iteration").is_empty(), "the iteration was logged");
    assert!(out.join("not_finite/iteration_000000.safetensors").is_file());
}

// ---- predictions and places to write

#[test]
fn what_predict_cannot_do_is_told() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (image, other, fake) = (at("a.png"), at("b.png"), at("fake.jpg"));
    fs::write(&image, plane(40, 30, 9)).unwrap();
    fs::write(&other, plane(40, 30, 9)).unwrap();
    fs::write(&fake, "no picture").unwrap();
    let out = at("out");
    let predict = |images: &[&PathBuf], more: &[&str]| {
        let mut args: Vec<&str> = images.iter().map(|image| text(image)).collect();
        args.extend(["--checkpoint", text(reference())]);
        args.extend(more);
        run("predict", &args)
    };
    refused(&predict(&[&fake], &["--out", text(&out)]), &[text(&fake), "not a PNG or JPEG"]);
    let nowhere = at("nowhere.png");
    refused(&predict(&[&nowhere], &["--out", text(&out)]), &[text(&nowhere), "cannot read"]);
    let logits = at("logits.safetensors");
    let both = predict(&[&image, &other], &["--out", text(&out), "--logits", text(&logits)]);
    refused(&both, &["--logits", "one image file"]);

    // Results never overwrite an input image, nor each other.
    let before = fs::read(&image).unwrap();
    let same = predict(&[&image], &["--out", text(folder.path())]);
    refused(&same, &[text(&image), "a.png", "--out"]);
    assert!(before == fs::read(&image).unwrap());
    fs::create_dir(at("sub")).unwrap();
    let twin = at("sub").join("a.png");
    fs::copy(&image, &twin).unwrap();
    refused(&predict(&[&twin, &twin], &["--out", text(&out)]), &["a_overlay.png", "itself"]);
    assert!(!out.exists(), "refused before anything is written");
    // Images of one name in two folders have results in two.
    let both = predict(&[&image, &twin], &["--out", text(&out)]);
    assert!(both.status.success(), "{}", stderr(&both));
    for result in ["a.png", "a_overlay.png", "sub/a.png", "sub/a_overlay.png"] {
        assert!(out.join(result).is_file(), "{result}");
    }
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    // Not even root can create a folder inside a file.
    let below = file.join("run");
    let output = run("train", &["--max-iters", "1", "--out", text(&below)]);
    refused(&output, &[text(&below), "cannot create"]);

    // The evaluation is printed although its file cannot be written.
    let json = file.join("result.json");
    let output = run("eval", &["--checkpoint", text(reference()), "--json", text(&json)]);
    refused(&output, &[text(&json), "cannot write"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("mIoU"));

    let image = folder.path().join("a.png");
    fs::write(&image, plane(40, 30, 9)).unwrap();
    let args = [text(&image), "--checkpoint", text(reference()), "--out", text(&below)];
    refused(&run("predict", &args), &[text(&below), "cannot write"]);
}

#[test]
fn a_folder_without_permission_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write anywhere.
    let allowed = fs::write(closed.join("probe"), "").is_ok();
    if !allowed {
        let out = closed.join("run");
        let output = run("train", &["--max-iters", "1", "--out", text(&out)]);
        refused(&output, &[text(&out), "cannot create", "ermission denied"]);
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
}
