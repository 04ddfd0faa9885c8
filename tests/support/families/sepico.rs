//! Whole iterations of SePiCo, each on the state that the previous one left.
//!
//! AdamW turns the round-off of tiny gradients into whole steps, so from the second iteration on the
//! teacher labels some pixels differently. The reference's run in double precision, from which the
//! tolerances are, kept the recorded labels. So does this one, after comparing them.

use std::collections::{BTreeMap, HashMap};

use udass_raw::config::{Config, ContrastKind};
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::ops;
use udass_raw::ops::mix::Labeled;
use udass_raw::optimizer::{UpdateNumbers, teacher_alpha};
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};
use udass_raw::uda::batch::DeviceBatch;
use udass_raw::uda::inputs::{MAX_CLASSES, StepInputs, Switches};
use udass_raw::uda::state::TrainingState;
use udass_raw::uda::trace::Trace;

use super::contrast::{compare_bank, compare_statistics};
use super::layout::{compare_map, upload_image};
use super::networks::{fill, network_config};
use super::said;
use super::steps::{compare_norms, norms, one, row};
use crate::support::cases::{Case, Outcome};
use crate::support::compare::FLIPPED;
use crate::support::formula;
use crate::support::report::Report;
use crate::support::uda::{Augment, SepicoDraws};

/// The configuration under which a case was recorded.
fn config_of(case: &Case) -> Outcome<Config> {
    let arch: String = case.read(&["arch"])?;
    // A ResNet's head has all four dilations, and its norms keep their decay.
    let preset = if arch.starts_with("mit") { "sepico_vit" } else { "sepico_cnn" };
    let mut config = Config::load(preset, &[]).map_err(said)?;
    let dilations = config.network.dilations.clone();
    config.network = network_config(&arch, None);
    config.network.dilations = dilations;
    config.network.projection = case.read(&["aux_channels"])?;
    config.data.batch = case.read(&["batch"])?;
    config.data.crop = case.read(&["crop"])?;
    let [height, width]: [usize; 2] = case.read(&["target_size"])?;
    config.target.resize = [width, height];
    config.contrast.start = case.read(&["start_contrast"])?;
    config.contrast.kind = match case.read::<String>(&["variant"])?.as_str() {
        "dist" => ContrastKind::Distributions,
        "bank" => ContrastKind::Bank,
        "proto" => ContrastKind::Prototypes,
        other => return Err(format!("{other} is no variant of SePiCo")),
    };
    config.contrast.memory = case.read::<usize>(&["memory_length"])?.max(1);
    config.optimizer.lr = case.read(&["optimizer", "lr"])?;
    config.optimizer.betas = case.read(&["optimizer", "betas"])?;
    config.optimizer.eps = case.read(&["optimizer", "eps"])?;
    config.optimizer.weight_decay = case.read(&["optimizer", "weight_decay"])?;
    Ok(config)
}

/// Puts the recorded draws into an iteration's inputs.
fn recorded(inputs: &mut StepInputs, draws: &SepicoDraws, batch: usize) {
    let on = draws.switches;
    let off = Switches { jitter: false, blur: false };
    inputs.switches = [Switches { jitter: on.jitter_on, blur: on.blur_on }, off];
    let none = Augment { jitter: None, sigma: None };
    let mixed = draws.mixed.iter().map(|augment| one(augment, 0));
    let unused = (0..2 * batch).map(|_| one(&none, 0));
    let source = (0..batch).map(|i| one(&draws.source, i));
    let target = (0..batch).map(|i| one(&draws.target, i));
    inputs.augment = mixed.chain(unused).chain(source).chain(target).collect();
    inputs.class_mix = draws.classes.iter().flat_map(|c| row(Some(c), MAX_CLASSES)).collect();
    inputs.crop_boxes = draws.boxes.clone();
}

pub fn iterations(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let config = config_of(case)?;
    let (batch, crop) = (config.data.batch, config.data.crop);
    let [width, height] = config.target.resize;
    let names: Vec<String> = case.read(&["param_order"])?;
    let [top, bottom]: [usize; 2] = case.read(&["margins"])?;
    let network = Segmentor::new(&config.network).map_err(said)?;
    let student = fill(device, network.spec(), true, "", &case.weight_scale()?)?;
    let mut training = TrainingState::new(device, &config, network, student, None).map_err(said)?;
    // Rows of the crop, which is as high as the image.
    let valid: Vec<u8> = (0..batch * height * width)
        .map(|i| u8::from((top..height - bottom).contains(&(i / width % height))))
        .collect();
    let settings = (&config.optimizer).into();
    for (t, draws) in SepicoDraws::of(case)?.iter().enumerate() {
        let key = |name: &str| format!("t{t}/{name}");
        let teacher = training.teacher.as_ref().ok_or("there is no teacher")?;
        let teacher_norms = norms(device, teacher, &teacher.values)?;
        compare_norms(report, &key("teacher_param_l2"), &teacher_norms, &names)?;
        let image = |name: &str, [h, w]: [usize; 2]| {
            let values = formula::image(&case.input(&key(name)), batch * 3 * h * w);
            upload_image(device, [batch, 3, h, w], &values)
        };
        let label = report.input_bytes(&key("label"))?;
        let label = device.upload(&[batch, crop, crop], &label).map_err(said)?;
        let source = Labeled { image: image("img", [crop; 2])?, label, weight: None };
        let valid = device.upload(&[batch, height, width], &valid).map_err(said)?;
        let target = image("target", [height, width])?;
        training.load(&DeviceBatch { source, target, valid, rare: None }).map_err(said)?;
        let mut inputs = training.draw(t as u64);
        recorded(&mut inputs, draws, batch);
        let alpha = teacher_alpha(config.teacher.ema_decay, t as u64 + 1);
        let update = |lr, number| UpdateNumbers::new(&settings, lr, number, alpha);
        inputs.update = update(config.optimizer.lr, t as u64 + 1);
        inputs.late_update = match (t as u64).checked_sub(config.contrast.start) {
            Some(before) => update(config.optimizer.lr, before + 1),
            None => update(0.0, 1),
        };
        let mut seen = BTreeMap::new();
        let mut labels = HashMap::new();
        let stored = [("teacher/full_label", "full_label"), ("teacher/label", "crop_label")];
        for (name, part) in stored.into_iter().filter(|_| t > 0) {
            labels.insert(name, report.input_bytes(&key(&format!("teacher/{part}")))?);
        }
        let mut agreement = Vec::new();
        let mut keep = |name: &str, tensor: &Tensor| {
            if let Some(label) = labels.get(name) {
                let own: Vec<u8> = device.read(tensor)?;
                let same = own.iter().zip(label).filter(|(a, b)| a == b).count();
                agreement.push(same as f64 / own.len() as f64);
                device.write(&mut tensor.clone(), label)?;
            }
            let mut copy = device.alloc(tensor.shape(), tensor.dtype())?;
            device.copy(tensor, &mut copy)?;
            seen.insert(name.to_owned(), copy);
            Ok(())
        };
        let step = training.step_with(&inputs, Trace::to(&mut keep)).map_err(said)?;
        report.require(&key("is finite"), !step.failed);
        let enough = |share: &f64| *share >= 1.0 - FLIPPED;
        let agrees = agreement.len() == labels.len() && agreement.iter().all(enough);
        report.require(&key(&format!("labels agree, {agreement:?}")), agrees);
        compare_seen(report, device, case, t, &seen, crop)?;
        let terms: HashMap<String, f64> =
            step.terms.into_iter().map(|(name, value)| (name, f64::from(value))).collect();
        compare_log(report, case, &key("log/"), &terms);
        let contrast = training.contrast.as_ref().ok_or("there is no contrast")?;
        compare_statistics(report, device, &key(""), &contrast.kept.statistics)?;
        if let (Some(bank), true) = (&contrast.kept.bank, case.has(&key("bank"))) {
            compare_bank(report, device, &key("bank"), bank)?;
        }
        let student = &training.student;
        let grads = student.grads.as_ref().ok_or("the student has no gradients")?;
        compare_norms(report, &key("grad_l2"), &norms(device, student, grads)?, &names)?;
        let values = norms(device, student, &student.values)?;
        compare_norms(report, &key("student_param_l2"), &values, &names)?;
        for (i, param) in student.spec().params().iter().enumerate() {
            let key = key(&format!("grad/{}", param.name));
            if case.has(&key) {
                let gradient = student.export(device, grads, i).map_err(said)?;
                report.compare(&key, &param.shape, &gradient);
            }
        }
    }
    Ok(())
}

/// Compares what the iteration showed of itself.
fn compare_seen(
    report: &mut Report,
    device: &Device,
    case: &Case,
    t: usize,
    seen: &BTreeMap<String, Tensor>,
    crop: usize,
) -> Outcome {
    let get = |name: &str| seen.get(name).ok_or_else(|| format!("the iteration hides {name}"));
    let maps = [("teacher/q", "teacher/q"), ("source/img", "src.img"), ("mix/img", "mix.img")];
    for (key, name) in maps.into_iter().chain([("target/img", "tgt.img")]) {
        let key = format!("t{t}/{key}");
        if case.has(&key) {
            compare_map(report, &key, device, get(name)?)?;
        }
    }
    let tape = Tape::inference(device);
    let logits = ops::resize(&tape, get("teacher/logits")?, (crop, crop), None).map_err(said)?;
    compare_map(report, &format!("t{t}/teacher/crop_logits"), device, &logits)?;
    for (key, name) in [
        ("teacher/full_label", "teacher/full_label"),
        ("teacher/crop_label", "teacher/label"),
        ("target/label", "tgt.label"),
        ("mix/label", "mix.label"),
        ("mix/weight", "mix.weight"),
    ] {
        let key = format!("t{t}/{key}");
        if !case.has(&key) {
            continue;
        }
        let (plane, shape) = (get(name)?, case.entry(&key)?.shape.clone());
        match plane.dtype() {
            DType::U8 => report.compare(&key, &shape, &device.read::<u8>(plane).map_err(said)?),
            _ => report.compare(&key, &shape, &device.read_f32(plane).map_err(said)?),
        }
    }
    // Each image's box is the one that was chosen.
    #[derive(serde::Deserialize)]
    struct Iteration {
        chosen: Vec<usize>,
    }
    let all: Vec<Iteration> = case.read(&["per_iteration"])?;
    let boxes = &SepicoDraws::of(case)?[t].boxes;
    let many = boxes.len() / all[t].chosen.len();
    let chosen = all[t].chosen.iter().enumerate().flat_map(|(i, k)| boxes[i * many + k]);
    let places: Vec<i32> = device.read(get("crop/box")?).map_err(said)?;
    report.require(&format!("t{t}: the boxes {places:?}"), chosen.eq(places.iter().copied()));
    Ok(())
}

/// Compares the logged losses. The reference adds those of a pass up.
fn compare_log(report: &mut Report, case: &Case, prefix: &str, terms: &HashMap<String, f64>) {
    let of = |name: &str| terms.get(name).copied();
    for (key, _) in &case.scalars {
        let Some(name) = key.strip_prefix(prefix) else { continue };
        let value = match name {
            "src.loss" => of("decode.loss_seg").map(|l| l + of("src.aux.loss_cl").unwrap_or(0.0)),
            "tgt.loss" => of("tgt.aux.loss_cl"),
            "mix.loss" => of("mix.decode.loss_seg"),
            _ => of(name).or_else(|| of(name.strip_prefix("src.")?)),
        };
        report.scalar(key, value.unwrap_or(f64::NAN));
    }
}
