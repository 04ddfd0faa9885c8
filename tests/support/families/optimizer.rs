//! AdamW, its learning-rate schedule, and the EMA teacher.

use std::collections::HashMap;
use std::rc::Rc;

use serde::Deserialize;
use udass_raw::device::Device;
use udass_raw::optimizer::{
    AdamWSettings, Optimizer, Schedule, UpdateNumbers, learning_rate, teacher_alpha,
};
use udass_raw::params::{Init, Layout, Spec, Weights};
use udass_raw::tensor::{DType, Tensor};

use super::said;
use crate::support::cases::Outcome;
use crate::support::formula;
use crate::support::report::Report;

/// Checks the learning rates at the listed iterations: linear warm-up over 1500 iterations,
/// multiplied by a decay to 0 at 40000.
pub fn schedule(report: &mut Report, _: &Device) -> Outcome {
    #[derive(Deserialize)]
    struct Row {
        iter: u64,
        lr: f64,
        lr_head: f64,
    }
    let schedule = Schedule { warmup: 1500, warmup_ratio: 1e-6, end: 40_000 };
    let table: Vec<Row> = report.case().read(&["table"])?;
    for Row { iter, lr, lr_head } in table {
        // The stated rates are exact up to the order of a few roundings.
        let tol = 1e-9;
        report.number(&format!("lr at {iter}"), lr, learning_rate(6e-5, &schedule, iter), tol);
        let head = learning_rate(6e-4, &schedule, iter);
        report.number(&format!("lr_head at {iter}"), lr_head, head, tol);
    }
    Ok(())
}

/// Parameters of equal size, filled from the formula as images.
fn weights(
    device: &Device,
    names: &[String],
    len: usize,
    source: impl Fn(&str) -> String,
) -> Outcome<Weights> {
    let mut spec = Spec::default();
    for name in names {
        spec.param(name.as_str(), &[len], Layout::Same, Init::Constant(0.0));
    }
    let mut weights = Weights::new(device, &Rc::new(spec), true).map_err(said)?;
    weights.load(device, |p| Ok(Some(formula::image(&source(&p.name), len)))).map_err(said)?;
    Ok(weights)
}

/// Returns every parameter of a flat buffer by name.
fn by_name(
    device: &Device,
    weights: &Weights,
    flat: &Tensor,
) -> Outcome<HashMap<String, Vec<f32>>> {
    let all = weights.spec().params().iter().enumerate();
    all.map(|(i, p)| Ok((p.name.clone(), weights.export(device, flat, i).map_err(said)?))).collect()
}

/// Writes gradients into the flat buffer, at each parameter's offset.
fn set_gradients(
    device: &Device,
    weights: &mut Weights,
    gradient: impl Fn(&str) -> Vec<f32>,
) -> Outcome {
    let mut grads = weights.grads.take().ok_or("these weights have no gradients")?;
    let filled = weights.load_flat(device, &mut grads, |p| Ok(Some(gradient(&p.name))));
    weights.grads = Some(grads);
    filled.map_err(said)
}

struct Step<'a> {
    device: &'a Device,
    optimizer: Optimizer,
}

impl Step<'_> {
    fn take(
        &mut self,
        student: &mut Weights,
        teacher: Option<&mut Weights>,
        numbers: UpdateNumbers,
    ) -> Outcome {
        let numbers = numbers.to_array();
        let numbers = self.device.upload_real(&[numbers.len()], &numbers).map_err(said)?;
        let failed = self.device.zeros(&[1], DType::I32).map_err(said)?;
        self.optimizer.update(self.device, student, teacher, &numbers, &failed).map_err(said)
    }
}

/// Parses `"p1: lr x10 wd .01"`.
fn group(text: &str) -> Option<(String, f64, f64)> {
    let (name, rest) = text.split_once(": lr x")?;
    let (lr, decay) = rest.split_once(" wd ")?;
    Some((name.into(), lr.parse().ok()?, decay.parse().ok()?))
}

/// Runs several AdamW steps on three parameters with different parameter groups.
pub fn adamw(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let len: usize = case.read(&["n"])?;
    let rates: Vec<f64> = case.read(&["lr_per_step"])?;
    let groups: Vec<String> = case.read(&["groups"])?;
    let groups: Vec<_> = groups
        .iter()
        .map(|text| group(text).ok_or_else(|| format!("group {text:?} is not understood")))
        .collect::<Outcome<_>>()?;
    let settings = AdamWSettings { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 };
    let multipliers = |name: &str| {
        let group = groups.iter().find(|(group, ..)| group == name);
        group.map_or((1.0, 1.0), |(_, lr, decay)| (*lr, decay / settings.weight_decay))
    };
    let names: Vec<String> = groups.iter().map(|(name, ..)| name.clone()).collect();
    let mut student = weights(device, &names, len, |name| case.input(name))?;
    let optimizer = Optimizer::new(device, &student, settings, multipliers).map_err(said)?;
    let mut step = Step { device, optimizer };
    for (s, &rate) in rates.iter().enumerate() {
        set_gradients(device, &mut student, |name| {
            let i: i32 = name[1..].parse().expect("parameters are called p0, p1, …");
            let scale = 10f64.powi(-2 * i);
            let grad = formula::image(&case.input(&format!("g{i}_{s}")), len);
            grad.iter().map(|&g| (f64::from(g) * scale) as f32).collect()
        })?;
        let numbers = UpdateNumbers::new(&settings, rate, s as u64 + 1, 1.0);
        step.take(&mut student, None, numbers)?;
        let now = by_name(device, &student, &student.values)?;
        compare_all(report, &format!("step{}/", s + 1), &now);
    }
    let moments = [("m", &step.optimizer.exp_avg), ("v", &step.optimizer.exp_avg_sq)];
    for (letter, flat) in moments {
        let values = by_name(device, &student, flat)?;
        let renamed = values.into_iter().map(|(k, v)| (k.replacen('p', letter, 1), v)).collect();
        compare_all(report, "", &renamed);
    }
    Ok(())
}

/// Compares those of the tensors that are stored.
fn compare_all(report: &mut Report, prefix: &str, values: &HashMap<String, Vec<f32>>) {
    for (name, values) in values {
        let key = format!("{prefix}{name}");
        if report.case().has(&key) {
            report.compare(&key, &[values.len()], values);
        }
    }
}

/// Runs one teacher update at each stated iteration, with the kernel that also does AdamW: at
/// learning rate 0 the student does not change.
pub fn ema(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let settings = AdamWSettings { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
    for key in report.keys("") {
        let iteration = key.strip_prefix("iter").and_then(|n| n.parse().ok());
        let iteration: u64 = iteration.ok_or_else(|| format!("{key} names no iteration"))?;
        let alpha = teacher_alpha(0.999, iteration);
        report.number(&format!("alpha of {key}"), case.read(&[key])?, alpha, 1e-12);
        let len = case.entry(key)?.len();
        let name = ["w".to_string()];
        let mut student = weights(device, &name, len, |_| case.input("student"))?;
        let mut teacher = weights(device, &name, len, |_| case.input("teacher"))?;
        let optimizer = Optimizer::new(device, &student, settings, |_| (1.0, 1.0)).map_err(said)?;
        let mut step = Step { device, optimizer };
        let numbers = UpdateNumbers::new(&settings, 0.0, 1, alpha);
        step.take(&mut student, Some(&mut teacher), numbers)?;
        let after = by_name(device, &teacher, &teacher.values)?;
        report.compare(key, &[len], &after["w"]);
    }
    Ok(())
}
