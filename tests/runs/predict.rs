//! Tests predictions and evaluations: images of any size, logits, and consistent numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::Dtype;
use serde_json::Value;
use udass_raw::data::classes::{CITYSCAPES, Classes};

use crate::support::{
    Contents, ITERATIONS, config, copy_folder, events, folder, reference, reference_checkpoint,
    run, run_in, stderr, succeed, text, world,
};

/// Writes a color PNG in which all neighboring pixels differ.
fn picture(path: &Path, width: usize, height: usize) {
    let rgb: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [7 * x + y, 3 * y + 40, x * y / 3]))
        .map(|value| value as u8)
        .collect();
    udass_raw::run::eval::images::save_rgb(path, width, height, &rgb).unwrap();
}

/// Returns width, height, channels and bytes of a PNG.
fn decode(path: &Path) -> (usize, usize, usize, Vec<u8>) {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    (info.width as usize, info.height as usize, info.color_type.samples(), data)
}

fn predict(images: &[&Path], out: &Path, more: &[&str]) -> String {
    let mut args: Vec<&str> = images.iter().map(|image| text(image)).collect();
    args.extend(["--checkpoint", text(reference()), "--out", text(out)]);
    args.extend(more);
    String::from_utf8(succeed("predict", &args).stdout).unwrap()
}

#[test]
fn pictures_of_any_size_come_back_in_their_own() {
    // Odd sizes, smaller than a window, larger than several, a single pixel, lines.
    let sizes = [(97, 61), (40, 33), (200, 150), (1, 1), (130, 2), (3, 90), (64, 64)];
    let folder = folder();
    let images: Vec<PathBuf> =
        sizes.iter().map(|(w, h)| folder.path().join(format!("street {w}x{h}.png"))).collect();
    for (path, &(width, height)) in images.iter().zip(&sizes) {
        picture(path, width, height);
    }
    let out = folder.path().join("out");
    let images: Vec<&Path> = images.iter().map(PathBuf::as_path).collect();
    let mut expected = Vec::new();
    let written = predict(&images, &out, &[]);
    for (width, height) in sizes {
        let overlay = out.join(format!("street {width}x{height}_overlay.png"));
        let ids = out.join(format!("street {width}x{height}.png"));
        let (w, h, channels, _) = decode(&overlay);
        assert_eq!((w, h, channels), (width, height, 3));
        let (w, h, channels, data) = decode(&ids);
        assert_eq!((w, h, channels), (width, height, 1));
        assert!(data.iter().all(|id| CITYSCAPES.iter().any(|class| class.label_id == *id)));
        expected.extend([overlay, ids].map(|path| format!("{}\n", path.display())));
    }
    assert_eq!(written, expected.concat(), "what was written is what is told");
}

#[test]
fn a_folder_stands_for_its_images() {
    let folder = folder();
    let images = folder.path().join("images");
    for name in ["b.png", "a.png"] {
        picture(&images.join(name), 64, 64);
    }
    // Neither is an image: a note, and what macOS leaves next to a file on another system's disk.
    fs::write(images.join("notes.txt"), "a.png").unwrap();
    fs::write(images.join("._a.png"), "resource fork").unwrap();
    let out = folder.path().join("out");
    let written = predict(&[&images], &out, &[]);
    let names = ["a_overlay.png", "a.png", "b_overlay.png", "b.png"];
    let expected = names.map(|name| format!("{}\n", out.join(name).display()));
    assert_eq!(written, expected.concat());
    // So does a glob that the shell has left alone.
    assert_eq!(predict(&[&images.join("*.p?g")], &out, &[]), expected.concat());
    let none = images.join("c*.png");
    let args = [text(&none), "--checkpoint", text(reference()), "--out", text(&out)];
    let told = stderr(&run("predict", &args));
    assert!(told.contains("c*.png: no .png, .jpg or .jpeg file matches"), "{told}");
    fs::create_dir(folder.path().join("empty")).unwrap();
    let empty = folder.path().join("empty");
    let args = [text(&empty), "--checkpoint", text(reference()), "--out", text(&out)];
    let told = stderr(&run("predict", &args));
    assert!(told.contains("this folder has no .png, .jpg or .jpeg files"), "{told}");
}

#[test]
fn windows_in_batches_and_threads_change_nothing() {
    let folder = folder();
    let image = folder.path().join("a.png");
    picture(&image, 150, 97);
    let logits = |name: &str, more: &[&str]| {
        let file = folder.path().join(name);
        let out = folder.path().join("out");
        predict(&[&image], &out, &[&["--logits", text(&file)], more].concat());
        Contents::of(&file).f32("logits")
    };
    let one = logits("one", &["--set", "eval.batch=1"]);
    // Matmuls of other sizes sum in another order.
    let five = logits("five", &["--set", "eval.batch=5"]);
    let far = one.iter().zip(&five).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-4, "{far}");
    assert!(one == logits("threads", &["--set", "eval.batch=1", "--set", "device.threads=3"]));
    assert!(one != logits("whole", &["--set", "eval.window=0"]), "windows are in use");
}

#[test]
fn logits_are_those_that_the_label_map_was_made_from() {
    let folder = folder();
    let image = folder.path().join("a.png");
    let (out, file) = (folder.path().join("out"), folder.path().join("a.safetensors"));
    for (width, height) in [(97, 61), (40, 33)] {
        picture(&image, width, height);
        let written = predict(&[&image], &out, &["--logits", text(&file)]);
        assert!(written.starts_with(&format!("{}\n", file.display())), "{written}");
        let contents = Contents::of(&file);
        let names: Vec<&String> = contents.tensors.keys().collect();
        assert_eq!(names, ["logits"]);
        let (dtype, shape, _) = &contents.tensors["logits"];
        assert_eq!((*dtype, shape.as_slice()), (Dtype::F32, &[1, height, width, 19][..]));
        let logits = contents.f32("logits");
        assert!(logits.iter().all(|x| x.is_finite()));
        // Logits are written before the softmax, so they have both signs.
        assert!(logits.iter().any(|&x| x < 0.0) && logits.iter().any(|&x| x > 0.0));
        let best = |pixel: &[f32]| {
            let above = |best, c: usize| if pixel[c] > pixel[best] { c } else { best };
            Classes::cityscapes().label_id((1..19).fold(0, above) as u8)
        };
        let ids: Vec<u8> = logits.chunks_exact(19).map(best).collect();
        assert!(ids == decode(&out.join("a.png")).3, "{width}x{height}");
    }
}

#[test]
fn a_resize_is_the_networks_and_not_the_results() {
    let folder = folder();
    let image = folder.path().join("a.png");
    picture(&image, 97, 61);
    let (out, file) = (folder.path().join("out"), folder.path().join("a.safetensors"));
    predict(&[&image], &out, &["--resize", "128x80", "--logits", text(&file)]);
    let (_, shape, _) = &Contents::of(&file).tensors["logits"];
    assert_eq!(shape, &[1, 80, 128, 19]);
    let (w, h, channels, ids) = decode(&out.join("a.png"));
    assert_eq!((w, h, channels), (97, 61, 1));
    let (w, h, ..) = decode(&out.join("a_overlay.png"));
    assert_eq!((w, h), (97, 61));
    // Resizing to the image's own size changes nothing.
    let plain = folder.path().join("plain");
    predict(&[&image], &plain, &[]);
    let own = folder.path().join("own");
    predict(&[&image], &own, &["--resize", "97x61"]);
    let expected = decode(&plain.join("a.png")).3;
    assert!(expected == decode(&own.join("a.png")).3);
    assert!(expected != ids, "the resize changes what the network sees");
}

#[test]
fn gray_pictures_and_jpegs_are_read() {
    let folder = folder();
    let (gray, jpeg) = (folder.path().join("gray.png"), folder.path().join("b.jpeg"));
    let levels: Vec<u8> = (0..50 * 40).map(|i| (i % 251) as u8).collect();
    image::save_buffer(&gray, &levels, 50, 40, image::ColorType::L8).unwrap();
    let rgb: Vec<u8> = levels.iter().flat_map(|&v| [v, 255 - v, 9]).collect();
    image::save_buffer(&jpeg, &rgb, 50, 40, image::ColorType::Rgb8).unwrap();
    let out = folder.path().join("out");
    predict(&[&gray, &jpeg], &out, &[]);
    for name in ["gray.png", "b.png", "gray_overlay.png", "b_overlay.png"] {
        assert_eq!(decode(&out.join(name)).0, 50, "{name}");
    }
}

#[test]
fn an_evaluation_says_the_same_in_its_table_its_file_and_the_log() {
    let folder = folder();
    let file = folder.path().join("result.json");
    let checkpoint = reference_checkpoint();
    let output = succeed("eval", &["--checkpoint", text(reference()), "--json", text(&file)]);
    let result: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(result["checkpoint"], text(&checkpoint));
    assert_eq!(result["config"], "toy_vit");
    assert_eq!(result["iteration"], ITERATIONS);
    assert_eq!(result["images"], 4);

    // Recomputed from the confusion matrix alone; its rows are labels.
    let matrix: Vec<Vec<u64>> = serde_json::from_value(result["confusion_matrix"].clone()).unwrap();
    assert_eq!((matrix.len(), matrix[0].len()), (19, 19));
    let sum = |values: &mut dyn Iterator<Item = u64>| values.sum::<u64>() as f64;
    let pixels = sum(&mut matrix.iter().flatten().copied());
    assert_eq!(result["pixels"].as_f64().unwrap(), pixels);
    assert!(pixels > 0.5 * 4.0 * 128.0 * 64.0, "{pixels} pixels were labeled");
    let (mut ious, mut accuracies) = (Vec::new(), Vec::new());
    for k in 0..19 {
        let hits = matrix[k][k] as f64;
        let labeled = sum(&mut matrix[k].iter().copied());
        let predicted = sum(&mut matrix.iter().map(|row| row[k]));
        ious.push(hits / (labeled + predicted - hits));
        accuracies.push(hits / labeled);
    }
    let all = (0..19).map(|k| matrix[k][k]).sum::<u64>() as f64 / pixels;
    let mean = |values: &[f64]| {
        let there: Vec<f64> = values.iter().copied().filter(|x| !x.is_nan()).collect();
        there.iter().sum::<f64>() / there.len() as f64
    };
    let near = |value: &Value, expected: f64| {
        let value = value.as_f64().unwrap_or(f64::NAN);
        value == expected || (value - expected).abs() < 1e-12 || value.is_nan() && expected.is_nan()
    };
    for k in 0..19 {
        let class = &result["classes"][k];
        assert_eq!(class["name"], CITYSCAPES[k].name);
        assert!(near(&class["IoU"], ious[k]) && near(&class["Acc"], accuracies[k]), "{class}");
    }
    assert!(near(&result["mIoU"], mean(&ious)), "{result}");
    assert!(near(&result["mAcc"], mean(&accuracies)), "{result}");
    assert!(near(&result["aAcc"], all), "{result}");

    // The printed table is in percent.
    let table = String::from_utf8(output.stdout).unwrap();
    let shown = |x: f64| if x.is_nan() { "-".to_owned() } else { format!("{:.2}", 100.0 * x) };
    let rows = CITYSCAPES.iter().map(|class| class.name).zip(ious.iter().zip(&accuracies));
    let means = (mean(&ious), mean(&accuracies));
    for (name, (iou, accuracy)) in rows.chain([("mean", (&means.0, &means.1))]) {
        let row = table.lines().find_map(|line| line.trim().strip_prefix(name));
        let cells: Vec<&str> = row.expect(name).split_whitespace().collect();
        assert_eq!(cells, [shown(*iou), shown(*accuracy)], "{name} in\n{table}");
    }
    // Also the means over the classes that results on SYNTHIA are reported for.
    let without = |left_out: &[usize]| {
        let kept: Vec<f64> = (0..19).filter(|k| !left_out.contains(k)).map(|k| ious[k]).collect();
        mean(&kept)
    };
    let (of_16, of_13) = (without(&[9, 14, 16]), without(&[3, 4, 5, 9, 14, 16]));
    assert!(near(&result["mIoU16"], of_16) && near(&result["mIoU13"], of_13), "{result}");
    assert_eq!(result["percent"]["mIoU13"].as_f64().map(|x| format!("{x:.2}")), Some(shown(of_13)));
    for (count, mean) in [(16, of_16), (13, of_13)] {
        let row = format!("mean of SYNTHIA's {count} ");
        let row = table.lines().find_map(|line| line.trim().strip_prefix(&row));
        assert_eq!(row.map(str::trim), Some(&shown(mean)[..]), "{table}");
    }
    let [all_19, of_16, of_13, all] = [means.0, of_16, of_13, all].map(shown);
    let summary = format!("mIoU {all_19}  mIoU16 {of_16}  mIoU13 {of_13}  aAcc {all}  (4 images");
    assert!(table.contains(&summary), "{summary} in\n{table}");

    // The evaluation at the end of training saw the same network.
    let log = events(reference(), "evaluation");
    assert_eq!(log.len(), 1);
    for key in ["iteration", "mIoU", "mIoU16", "mIoU13"] {
        assert_eq!(log[0][key], result[key], "{key}");
    }
    let pictures = fs::read_dir(reference().join("pictures")).unwrap().count();
    assert_eq!(pictures, 4, "one for each image");
    assert_eq!(decode(&reference().join("pictures/01.png")).0, 3 * 128);
    assert_eq!(config(&[]).eval.window, 64);

    // `report` reads both and finds the same numbers in them.
    let mut report = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
    let output = report.args(["report", text(reference()), text(&file)]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let told = String::from_utf8(output.stdout).unwrap();
    for name in ["road", "sky", "mIoU"] {
        let row = told.lines().find(|line| line.trim_start().starts_with(name)).expect(name);
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells[1..3], cells[3..5], "run and difference, twice: {row}");
    }
    assert!(told.contains(&format!("mIoU {:.1}, ", 100.0 * means.0)), "{told}");
    let data = format!(
        "NOT the data of the published benchmark: toy data, the generated world in {}; 4 \
         validation images, \
         not 500; validation images of 128x64, not 2048x1024; validation images of ",
        world().display()
    );
    assert_eq!(told.matches(&data).count(), 2, "{told}");
}

#[test]
fn a_checkpoint_brings_its_configuration_and_a_run_is_found_by_its_name() {
    let folder = folder();
    let here = folder.path();
    copy_folder(reference(), &here.join("runs/mine"));
    picture(&here.join("street.png"), 97, 61);
    let did = |words: &[&str]| {
        let output = run_in(here, words);
        assert!(output.status.success(), "{words:?}:\n{}", stderr(&output));
        output
    };
    let expected = here.join("expected");
    predict(&[&here.join("street.png")], &expected, &[]);
    let expected = fs::read(expected.join("street.png")).unwrap();
    let converted = ["student.safetensors", "student.pth", "again.safetensors", "run.pth"];
    let [student, torch, again, whole] = converted;
    did(&["weights", "convert", "mine", student, "--weights", "student"]);
    did(&["weights", "convert", "mine", torch, "--weights", "student"]);
    did(&["weights", "convert", torch, again]);
    did(&["weights", "convert", "mine", whole]);
    for checkpoint in [&["mine", "runs/mine"][..], &converted[..]].concat() {
        let words = ["predict", "street.png", "--checkpoint", checkpoint, "--out", "out"];
        did(&words);
        assert!(fs::read(here.join("out/street.png")).unwrap() == expected, "{checkpoint}");
        fs::remove_dir_all(here.join("out")).unwrap();
    }
    // What other tools look for, and what was already there, in a run's checkpoint.
    assert_eq!(Contents::of(&here.join(student)).strings["format"], "pt");
    assert!(Contents::of(&here.join(student)).strings["config"].contains("mit_b0"));

    let evaluated = did(&["eval", "--checkpoint", "mine", "--json", "-"]);
    let result: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    assert_eq!(result["images"], 4);
    assert!(stderr(&evaluated).contains("mIoU"), "{}", stderr(&evaluated));
    // Changes still count.
    let words = ["eval", "--checkpoint", "mine", "--set", "eval.resize=[64, 32]", "--json", "-"];
    let smaller: Value = serde_json::from_slice(&did(&words).stdout).unwrap();
    assert_ne!(smaller["confusion_matrix"], result["confusion_matrix"]);

    // A file without a configuration says what to do, and a misspelled name is not an image.
    let mut bare = Contents::of(&here.join(student));
    bare.strings.clear();
    bare.write(&here.join("bare.safetensors"));
    let words = ["predict", "street.png", "--checkpoint", "bare.safetensors", "--out", "out"];
    let output = run_in(here, &words);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("holds no configuration, so name one"), "{}", stderr(&output));
    let words = ["predict", "gta_vitt", "street.png", "--checkpoint", "mine", "--out", "out"];
    let output = run_in(here, &words);
    assert!(stderr(&output).contains("did you mean `gta_vit`?"), "{}", stderr(&output));
}
