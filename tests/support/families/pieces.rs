//! Single operations on the device.

use udass_raw::device::{Device, kernels};
use udass_raw::ops::augment::{Augmentation, augment, block_mask as block, blur_size};
use udass_raw::ops::mix::{self, Candidates, CropNormalization, Labeled, Layer, Mix, RareCrops};
use udass_raw::ops::{self, ImageNormalizer};
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;
use udass_raw::uda::inputs::mask_cells;

use super::layout::{compare_map, to_reference, upload_image};
use super::said;
use crate::support::cases::{Case, Outcome};
use crate::support::formula;
use crate::support::hsv::hsv;
use crate::support::report::Report;
use crate::support::uda::Choice;

/// Returns the numeric keys of the config: variants of one operation.
fn variants(case: &Case) -> Outcome<Vec<String>> {
    let config = case.config.as_object().ok_or("the config is no object")?;
    Ok(config.keys().filter(|key| key.parse::<usize>().is_ok()).cloned().collect())
}

fn read_one(device: &Device, x: &Tensor) -> Outcome<f64> {
    Ok(f64::from(device.read_f32(x).map_err(said)?[0]))
}

/// The formula's image B,C,H,W of this name, times `factor`.
fn map(device: &Device, name: &str, shape: [usize; 4], factor: f32) -> Outcome<Tensor> {
    let values = formula::image(name, shape.iter().product());
    let values: Vec<f32> = values.iter().map(|v| v * factor).collect();
    upload_image(device, shape, &values)
}

pub fn cross_entropy(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let [b, c, h, w] =
        [case.read(&["B"])?, case.read(&["C"])?, case.read(&["H"])?, case.read(&["W"])?];
    let logits = map(device, &case.input("logits"), [b, c, h, w], 3.0)?;
    let labels = report.input_bytes("label")?;
    let weight = formula::unit(&case.input("weight"), b * h * w);
    let weight = device.upload_real(&[b, h, w], &weight).map_err(said)?;
    let run = |labels: &[u8], weight: Option<&Tensor>| -> udass_raw::Result<_> {
        let tape = Tape::recording(device);
        let leaf = tape.leaf(&logits);
        let labels = device.upload(&[b, h, w], labels)?;
        let loss = ops::cross_entropy(&tape, &leaf, &labels, weight)?;
        let seed = device.upload_real(&[1], &[1.0])?;
        let mut gradients = tape.backward(vec![(&loss.value, seed)])?;
        Ok((loss, gradients.of(&leaf)))
    };
    for (name, weight) in [("plain", None), ("weighted", Some(&weight))] {
        let (loss, gradient) = run(&labels, weight).map_err(said)?;
        report.scalar(&format!("{name}/loss"), read_one(device, &loss.value)?);
        report.scalar(&format!("{name}/acc"), read_one(device, &loss.accuracy)?);
        let gradient = gradient.ok_or("the logits have no gradient")?;
        compare_map(report, &format!("{name}/grad"), device, &gradient)?;
    }
    if let Some(expected) = case.extra.get("all_ignored") {
        let (loss, gradient) = run(&vec![255; b * h * w], None).map_err(said)?;
        let stored = expected["loss"].as_f64().ok_or("all_ignored states no loss")?;
        report.number("all_ignored loss", stored, read_one(device, &loss.value)?, 0.0);
        let zero = match gradient {
            Some(gradient) => device.read_f32(&gradient).map_err(said)?.iter().all(|&g| g == 0.0),
            None => true,
        };
        report.require("all_ignored gradient is zero", zero);
    }
    Ok(())
}

pub fn feature_distance(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let [b, c, h, w] =
        [case.read(&["B"])?, case.read(&["C"])?, case.read(&["H"])?, case.read(&["W"])?];
    let feature = |name: &str| {
        let map = map(device, &case.input(name), [b, c, h, w], 1.0)?;
        ops::to_operand(device, &map).map_err(said)
    };
    let (f1, f2) = (feature("f1")?, feature("f2")?);
    // Labels at the features' own size; class 1 marks the mask.
    let mask = report.input_bytes("mask")?;
    let mut flags = [0u8; 256];
    flags[1] = 1;
    let run = |mask: &[u8]| -> udass_raw::Result<_> {
        let tape = Tape::recording(device);
        let leaf = tape.leaf(&f1);
        let labels = device.upload(&[b, h, w], mask)?;
        let classes = device.upload(&[256], &flags)?;
        let distance = ops::feature_distance(&tape, &leaf, &f2, &labels, &classes, 0.75)?;
        let seed = device.upload_real(&[1], &[1.0])?;
        let mut gradients = tape.backward(vec![(&distance.value, seed)])?;
        Ok((distance, gradients.of(&leaf)))
    };
    let (distance, gradient) = run(&mask).map_err(said)?;
    report.scalar("dist", read_one(device, &distance.value)?);
    let gradient = gradient.ok_or("the features have no gradient")?;
    compare_map(report, "grad_f1", device, &gradient)?;
    if case.extra.contains_key("empty_mask") {
        // The reference's value is NaN here; this op returns 0.
        let (distance, gradient) = run(&vec![0; b * h * w]).map_err(said)?;
        report.number("empty mask: distance", 0.0, read_one(device, &distance.value)?, 0.0);
        report.number("empty mask: positions", 0.0, read_one(device, &distance.count)?, 0.0);
        let zero = match gradient {
            Some(gradient) => device.read_f32(&gradient).map_err(said)?.iter().all(|&g| g == 0.0),
            None => true,
        };
        report.require("empty mask: gradient is zero", zero);
    }
    Ok(())
}

pub fn downscale_label(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    for variant in variants(case)? {
        let scale: usize = case.read(&[&variant, "scale"])?;
        let share: f64 = case.read(&[&variant, "min_ratio"])?;
        let key = format!("{variant}/label");
        let shape = case.entry(&key)?.shape.clone();
        let label = report.input_bytes(&key)?;
        let small = (device.upload(&shape, &label))
            .and_then(|label| ops::downscale_labels(device, &label, scale, share))
            .map_err(said)?;
        let values: Vec<u8> = device.read(&small).map_err(said)?;
        report.compare(&format!("{variant}/out"), small.shape(), &values);
    }
    Ok(())
}

pub fn resize(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    for variant in variants(case)? {
        let from: [usize; 4] = case.read(&[&variant, "src"])?;
        let to: (usize, usize) = case.read(&[&variant, "dst"])?;
        let factor: Option<f64> = case.read(&[&variant, "scale_factor"])?;
        let operand = |name: String, shape| {
            let map = map(device, &case.input(&name), shape, 1.0)?;
            ops::to_operand(device, &map).map_err(said)
        };
        let x = operand(format!("x{variant}"), from)?;
        let derivative = operand(format!("g{variant}"), [from[0], from[1], to.0, to.1])?;
        let tape = Tape::recording(device);
        let leaf = tape.leaf(&x);
        let y = ops::resize(&tape, &leaf, to, factor.map(|f| (f, f))).map_err(said)?;
        compare_map(report, &format!("{variant}/out"), device, &y)?;
        let mut gradients = tape.backward(vec![(&y, derivative)]).map_err(said)?;
        let gradient = gradients.of(&leaf).ok_or("the input has no gradient")?;
        compare_map(report, &format!("{variant}/grad"), device, &gradient)?;
    }
    Ok(())
}

pub fn block_mask(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    for variant in variants(case)? {
        let side = |key: &str| case.read::<usize>(&[&variant, key]);
        let [b, h, w, size] = [side("B")?, side("H")?, side("W")?, side("block")?];
        let ratio: f32 = case.read(&[&variant, "ratio"])?;
        let cells: [usize; 2] = case.read(&[&variant, "grid"])?;
        let here = [mask_cells(h, size), mask_cells(w, size)];
        report.require(&format!("{variant}: a grid of {cells:?}"), here == cells);
        let grid = report.input(&format!("{variant}/grid"))?;
        let grid = device.upload_real(&[b, cells[0], cells[1]], &grid).map_err(said)?;
        let name: String = case.read(&[&variant, "img"])?;
        let image = map(device, &name, [b, 3, h, w], 1.0)?;
        let masked = block(device, &image, &grid, cells, ratio).map_err(said)?;
        compare_map(report, &format!("{variant}/masked"), device, &masked)?;
        // The mask is the result for an image of ones.
        let ones = device.upload_real(&[b, h, w, 3], &vec![1.0; b * h * w * 3]).map_err(said)?;
        let mask = block(device, &ones, &grid, cells, ratio).map_err(said)?;
        let (_, mask) = to_reference(device, &mask)?;
        let channels = mask.chunks_exact(h * w);
        let mask: Vec<f32> = channels.step_by(3).flatten().copied().collect();
        report.compare(&format!("{variant}/mask"), &[b, 1, h, w], &mask);
    }
    Ok(())
}

/// Returns uniform numbers for every image of a batch; where a choice failed, any will do.
fn uniforms(choices: &[Option<Choice>], most: usize) -> Vec<f32> {
    let row = |choice: &Option<Choice>| {
        let mut row: Vec<f32> = match choice {
            Some(choice) => choice.uniforms().into_iter().map(|u| u as f32).collect(),
            None => Vec::new(),
        };
        row.resize(most, 0.5);
        row
    };
    choices.iter().flat_map(row).collect()
}

/// Returns the choices of a config, one per image: a failed attempt is followed by one for fewer
/// classes.
fn choices(case: &Case, key: &str) -> Outcome<Vec<Option<Choice>>> {
    #[derive(serde::Deserialize)]
    struct Attempt {
        n: usize,
        k: usize,
        result: Option<Vec<usize>>,
    }
    let attempts: Vec<Attempt> = case.read(&[key])?;
    let fails_on = |a: &Attempt| a.result.is_none() && a.k > 1;
    let last = attempts.into_iter().filter(|a| !fails_on(a));
    Ok(last.map(|a| a.result.map(|positions| Choice { n: a.n, positions })).collect())
}

pub fn class_masks(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let shape: [usize; 3] =
        case.entry("label")?.shape.clone().try_into().map_err(|_| "label is not B,H,W")?;
    let [b, h, w] = shape;
    let upload = |values: Vec<u8>| device.upload(&shape, &values).map_err(said);
    let label = upload(report.input_bytes("label")?)?;
    let confident = upload(report.input_bytes("confident")?)?;
    let numbers = |choices: &[Option<Choice>], most: usize| {
        device.upload_real(&[b, most], &uniforms(choices, most)).map_err(said)
    };
    // The mask is the weight of an unweighted layer on top of an image with weights of 0.
    let normalizer = ImageNormalizer::new(device).map_err(said)?;
    let weight = Some(device.zeros(&shape, device.real()).map_err(said)?);
    let image = device.zeros(&[b, h, w, 3], device.real()).map_err(said)?;
    let mask = |label: &Tensor, table: &Tensor, confident: Option<&Tensor>| {
        let of = Labeled { image: image.clone(), label: label.clone(), weight: None };
        let under = Labeled { weight: weight.clone(), ..of.clone() };
        let layers = [Some(Layer { of: &of, table, confident }), None];
        let mix = Mix { under: &under, layers, rare: None };
        let mixed = mix::mix(device, &normalizer, mix, None).map_err(said)?;
        device.read_f32(mixed.weight.as_ref().ok_or("no weight")?).map_err(said)
    };

    let half = choices(case, "mic_choices")?;
    let most = half.iter().flatten().map(|c| c.positions.len()).max().unwrap_or(1);
    let table =
        mix::choose_half(device, &label, &numbers(&half, most)?, Candidates::All).map_err(said)?;
    report.compare("mic/mask", &[b, 1, h, w], &mask(&label, &table, None)?);
    let list: Vec<u8> = case.read(&["mic_classes"])?;
    let tables: Vec<u8> = device.read(&table).map_err(said)?;
    for (i, (choice, row)) in half.iter().zip(tables.chunks(256)).enumerate() {
        let chosen: Vec<u8> = (0..=255).filter(|&v| row[usize::from(v)] == 1).collect();
        let mut want = choice.as_ref().map_or(Vec::new(), |choice| choice.of(&list));
        want.sort_unstable();
        report.require(&format!("mic: classes of image {i}"), chosen == want);
    }

    let two = numbers(&choices(case, "quad_s_choices")?, 2)?;
    let (table, chosen) =
        mix::choose_two(device, &label, &two, Candidates::All, None, true).map_err(said)?;
    report.compare("quad_s/mask", &[b, 1, h, w], &mask(&label, &table, None)?);
    let positions: Vec<i32> = device.read(&chosen).map_err(said)?;
    report.compare("quad_s/choice_indices", &[b, 2], &positions);

    for name in ["quad_t", "quad_t_fallback"] {
        let pseudo = upload(report.input_bytes(&format!("{name}/plabel"))?)?;
        let two = numbers(&choices(case, &format!("{name}_choices"))?, 2)?;
        let (table, _) =
            mix::choose_two(device, &pseudo, &two, Candidates::All, Some(&chosen), true)
                .map_err(said)?;
        let mask = mask(&pseudo, &table, Some(&confident))?;
        report.compare(&format!("{name}/mask"), &[b, 1, h, w], &mask);
    }
    Ok(())
}

pub fn color_jitter(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let shape: [usize; 4] =
        case.entry("x01")?.shape.clone().try_into().map_err(|_| "x01 is not B,3,H,W")?;
    let [b, _, h, w] = shape;
    let names = ["brightness", "contrast", "saturation", "hue"];
    let of = |name: &&str| case.read::<Vec<f32>>(&[name]);
    let by_kind: Vec<Vec<f32>> = names.iter().map(of).collect::<Outcome<_>>()?;
    let factors: Vec<f32> = (0..b).flat_map(|i| by_kind.iter().map(move |f| f[i])).collect();
    let factors = device.upload_real(&[b, 4], &factors).map_err(said)?;
    let orders = |order: [i32; 4]| device.upload(&[b, 4], &order.repeat(b)).map_err(said);
    let switches = device.upload(&[2], &[1, 0]).map_err(said)?;
    let image = report.input("x01")?;
    let unit_image = upload_image(device, shape, &image)?;
    let (grid, pixels) = (device.elements(b * h * w), h * w);

    // No kernel converts without jittering. The stored conversion validates the plain arithmetic
    // against which tests/launchers checks the jitter.
    report.compare("rgb_to_hsv", &shape, &converted(&image, h * w));

    let zero = device.upload_real(&[3], &[0.0; 3]).map_err(said)?;
    let one = device.upload_real(&[3], &[1.0; 3]).map_err(said)?;
    for (kind, name) in names.iter().enumerate() {
        let mut image = device.empty(unit_image.shape()).map_err(said)?;
        let order = orders([kind as i32, -1, -1, -1])?;
        kernels::ColorJitter {
            x: &unit_image,
            factors: &factors,
            order: &order,
            switches: &switches,
            mean: &zero,
            std: &one,
            y: &mut image,
            unit: 1.0,
            batch: b,
            pixels,
        }
        .launch(device, grid)
        .map_err(said)?;
        compare_map(report, name, device, &image)?;
    }

    let normalizer = ImageNormalizer::new(device).map_err(said)?;
    let sigma = device.upload_real(&[b], &vec![1.0; b]).map_err(said)?;
    for key in report.keys("pipeline") {
        let order: [i32; 4] = case.read(&[&format!("pipeline{key}_order")])?;
        let augmentation = Augmentation {
            factors: factors.clone(),
            order: orders(order)?,
            sigma: sigma.clone(),
            switches: switches.clone(),
        };
        let image = map(device, &case.input("img"), shape, 1.0)?;
        let image = augment(device, &normalizer, &image, &augmentation).map_err(said)?;
        compare_map(report, &format!("pipeline{key}"), device, &image)?;
    }
    Ok(())
}

/// Returns hue in radians, saturation and value of images B,3,H,W with `pixels` pixels each.
fn converted(images: &[f32], pixels: usize) -> Vec<f64> {
    let mut all = Vec::with_capacity(images.len());
    for image in images.chunks(3 * pixels) {
        let color = |p: usize| [0, 1, 2].map(|c| f64::from(image[c * pixels + p]));
        let hsv: Vec<[f64; 3]> = (0..pixels).map(|p| hsv(color(p))).collect();
        all.extend(hsv.iter().map(|[hue, ..]| std::f64::consts::TAU * hue));
        all.extend(hsv.iter().map(|[_, saturation, _]| saturation));
        all.extend(hsv.iter().map(|[.., value]| value));
    }
    all
}

pub fn gaussian_blur(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let rule = case.get(&["kernel_size_rule"])?.as_object().ok_or("the rule is no object")?;
    for (side, taps) in rule {
        let side: usize = side.parse().map_err(|_| format!("side {side:?}"))?;
        let here = blur_size(side);
        report.require(&format!("{side} pixels: {taps} taps"), taps.as_u64() == Some(here as u64));
    }
    let normalizer = ImageNormalizer::new(device).map_err(said)?;
    let switches = device.upload(&[2], &[0, 1]).map_err(said)?;
    let factors = device.upload_real(&[1, 4], &[1.0, 1.0, 1.0, 0.0]).map_err(said)?;
    let order = device.upload(&[1, 4], &[0, 1, 2, 3]).map_err(said)?;
    for variant in variants(case)? {
        let [h, w] = [case.read(&[&variant, "H"])?, case.read(&[&variant, "W"])?];
        let sigma: f32 = case.read(&[&variant, "sigma"])?;
        let taps: [usize; 2] = case.read(&[&variant, "kernel"])?;
        report.require(&format!("{variant}: {taps:?} taps"), taps == [h, w].map(blur_size));
        let sigma = device.upload_real(&[1], &[sigma]).map_err(said)?;
        let along = |taps: usize| -> Outcome<Vec<f64>> {
            let half = taps / 2;
            let mut weights = device.empty(&[1, half + 1]).map_err(said)?;
            let grid = udass_raw::device::Grid::blocks(1);
            kernels::BlurWeights { sigma: &sigma, weights: &mut weights, half }
                .launch(device, grid)
                .map_err(said)?;
            let weights = device.read_f32(&weights).map_err(said)?;
            Ok((0..taps).map(|i| f64::from(weights[i.abs_diff(half)])).collect())
        };
        let (down, across) = (along(taps[0])?, along(taps[1])?);
        let kernel: Vec<f64> =
            down.iter().flat_map(|d| across.iter().map(move |a| d * a)).collect();
        report.compare(&format!("{variant}/kernel"), &taps, &kernel);
        let name: String = case.read(&[&variant, "img"])?;
        let image = map(device, &name, [1, 3, h, w], 1.0)?;
        let augmentation = Augmentation {
            factors: factors.clone(),
            order: order.clone(),
            sigma,
            switches: switches.clone(),
        };
        let image = augment(device, &normalizer, &image, &augmentation).map_err(said)?;
        compare_map(report, &format!("{variant}/out"), device, &image)?;
    }
    Ok(())
}

pub fn one_mix(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let [count, c, h, w]: [usize; 4] = case.read(&["shapes"])?;
    let images = formula::image(&case.input("img"), count * c * h * w);
    let weights = formula::unit(&case.input("weight"), count * h * w);
    let labels = report.input_bytes("label")?;
    let mask = device.upload(&[1, h, w], &report.input_bytes("mask")?).map_err(said)?;
    let part = |i: usize| -> Outcome<Labeled> {
        let (n, pixels) = (h * w, &images[i * c * h * w..(i + 1) * c * h * w]);
        let range = i * n..(i + 1) * n;
        Ok(Labeled {
            image: upload_image(device, [1, c, h, w], pixels)?,
            label: device.upload(&[1, h, w], &labels[range.clone()]).map_err(said)?,
            weight: Some(device.upload_real(&[1, h, w], &weights[range]).map_err(said)?),
        })
    };
    // The mask is the confident pixels; all classes of the labels are chosen.
    let table = device.upload(&[1, 256], &[1u8; 256]).map_err(said)?;
    let (over, under) = (part(0)?, part(1)?);
    let layer = Layer { of: &over, table: &table, confident: Some(&mask) };
    let mix = Mix { under: &under, layers: [None, Some(layer)], rare: None };
    let normalizer = ImageNormalizer::new(device).map_err(said)?;
    let mixed = mix::mix(device, &normalizer, mix, None).map_err(said)?;
    compare_map(report, "out/img", device, &mixed.image)?;
    let label: Vec<u8> = device.read(&mixed.label).map_err(said)?;
    report.compare("out/label", &[1, 1, h, w], &label);
    let weight = mixed.weight.ok_or("the mixed image has no weight")?;
    report.compare("out/weight", &[1, 1, h, w], &device.read_f32(&weight).map_err(said)?);
    Ok(())
}

pub fn pseudo_label(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let [b, h, w]: [usize; 3] = [case.read(&["B"])?, case.read(&["H"])?, case.read(&["W"])?];
    let logits = map(device, &case.input("logits"), [b, 19, h, w], 6.0)?;
    let shape = [b, h, w];
    let valid = device.upload(&shape, &report.input_bytes("valid")?).map_err(said)?;
    let confidence = ops::Confidence::default();
    let pseudo = ops::pseudo_labels(device, &logits, (h, w), Some(&valid), confidence, true);
    let pseudo = pseudo.map_err(said)?;
    report.scalar("weight_value", read_one(device, &pseudo.share)?);
    for (key, map) in [("plabel", &pseudo.label), ("confident", &pseudo.confident)] {
        report.compare(key, &shape, &device.read::<u8>(map).map_err(said)?);
    }
    let probability = pseudo.probability.as_ref().ok_or("the probability was asked for")?;
    for (key, map) in [("weight", &pseudo.weight), ("max_prob", probability)] {
        report.compare(key, &shape, &device.read_f32(map).map_err(said)?);
    }
    Ok(())
}

pub fn rare_paste(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let classes: [u8; 2] = case.read(&["classes"])?;
    let raw: std::collections::HashMap<String, u8> = case.read(&["raw_to_train"])?;
    let shape: [usize; 4] =
        case.entry("out/img")?.shape.clone().try_into().map_err(|_| "out/img is not B,3,H,W")?;
    let [_, _, h, w] = shape;
    let (mut rgb, mut labels) = (Vec::new(), Vec::new());
    for i in 0..2 {
        rgb.extend(report.input_bytes(&format!("{i}/src_rgb"))?);
        let ids = report.input_bytes(&format!("{i}/src_rawlabel"))?;
        let train = |id: &u8| raw.get(&id.to_string()).copied().unwrap_or(255);
        labels.extend(ids.iter().map(train));
    }
    let crops = RareCrops {
        rgb: device.upload(&[1, 2, h, w, 3], &rgb).map_err(said)?,
        label: device.upload(&[1, 2, h, w], &labels).map_err(said)?,
        classes: device.upload(&[2], &classes).map_err(said)?,
    };
    // The released code's colors: BGR, with the mean in RGB order, in the range 0 to 1.
    let gain = device.upload_real(&[3], &[1.0 / 255.0; 3]).map_err(said)?;
    let colors = CropNormalization { gain, reversed: true };
    let image = || map(device, &case.input("img"), shape, 1.0);
    let base = report.input_bytes("in/label")?;
    let labeled = |label: &[u8]| -> Outcome<Labeled> {
        let label = device.upload(&[1, h, w], label).map_err(said)?;
        Ok(Labeled { image: image()?, label, weight: None })
    };
    let normalizer = ImageNormalizer::new(device).map_err(said)?;
    let paste = |crops: &RareCrops, under: &[u8]| {
        let under = &labeled(under)?;
        let mix = Mix { under, layers: [None; 2], rare: Some((crops, &colors)) };
        mix::mix(device, &normalizer, mix, None).map_err(said)
    };
    let mixed = paste(&crops, &base)?;
    compare_map(report, "out/img", device, &mixed.image)?;
    let label: Vec<u8> = device.read(&mixed.label).map_err(said)?;
    report.compare("out/label", &[1, h, w], &label);

    // The pasted crop and its mask are visible separately: pasting a crop that is entirely its
    // class, for both classes, shows the pixels, and pasting the crop on a label without classes
    // shows the mask.
    for (i, &class) in classes.iter().enumerate() {
        let n = h * w;
        let only = |label: &[u8], class: u8| -> Outcome<RareCrops> {
            let rgb = rgb[i * 3 * n..(i + 1) * 3 * n].repeat(2);
            Ok(RareCrops {
                rgb: device.upload(&[1, 2, h, w, 3], &rgb).map_err(said)?,
                label: device.upload(&[1, 2, h, w], &label.repeat(2)).map_err(said)?,
                classes: device.upload(&[2], &[class; 2]).map_err(said)?,
            })
        };
        let whole = paste(&only(&vec![class; n], class)?, &vec![255; n])?;
        let ([_, c, h, w], values) = to_reference(device, &whole.image)?;
        report.compare(&format!("{i}/paste_img"), &[c, h, w], &values);
        let shown = paste(&only(&labels[i * n..(i + 1) * n], class)?, &vec![254; n])?;
        let shown: Vec<u8> = device.read(&shown.label).map_err(said)?;
        let mask: Vec<u8> = shown.iter().map(|&v| u8::from(v == class)).collect();
        report.compare(&format!("{i}/mask"), &[h, w], &mask);
    }
    Ok(())
}
