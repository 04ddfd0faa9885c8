//! An iteration whose numbers were not finite, run again.

use std::path::Path;

use super::learner;
use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::{batch, state};
use crate::config::Config;
use crate::run::build;
use crate::uda::inputs::StepInputs;
use crate::uda::report::Report;
use crate::uda::trace::Trace;
use crate::{Error, Result};

/// What an iteration did when it was run again.
pub struct Replayed {
    pub iteration: u64,
    pub report: Report,
    /// Intermediate results that are not finite, in the order in which they were computed.
    pub results: Vec<String>,
    /// Parameters whose gradients are not finite.
    pub gradients: Vec<String>,
}

/// Runs the iteration of a dump again, from the state before it and on its own batch; needs no data
/// set. `device`: another device.kind than the run's.
pub fn replay(path: &Path, device: Option<&str>) -> Result<Replayed> {
    let file = TensorFile::open(path)?;
    let text = file.metadata("config");
    let text = text.ok_or_else(|| Error::weights(path, "holds no configuration"))?;
    let mut config = Config::from_toml(text, &format!("configuration in {}", path.display()))?;
    if let Some(kind) = device {
        config.device.kind = kind.into();
    }
    let device = build::device(&config)?;
    let mut learner = learner::build(&config, &device, Some(&file))?;
    let iteration = state::load(&file, &mut learner)?.next;
    let batch = batch::read(&file, iteration)?;
    learner.load(&batch)?;
    let mut results = Vec::new();
    let mut check = |name: &str, tensor: &crate::tensor::Tensor| {
        if tensor.dtype() == device.real() {
            let numbers = device.read_f32(tensor)?;
            results.extend(numbers.iter().any(|x| !x.is_finite()).then(|| name.to_owned()));
        }
        Ok(())
    };
    let inputs = StepInputs::draw(&config, iteration);
    let report = learner.step_with(&inputs, Trace::to(&mut check))?;
    let mut gradients = Vec::new();
    let student = &learner.student;
    if let Some(grads) = &student.grads {
        for (index, param) in student.spec().params().iter().enumerate() {
            let numbers = student.export(&device, grads, index)?;
            gradients.extend(numbers.iter().any(|x| !x.is_finite()).then(|| param.name.clone()));
        }
    }
    Ok(Replayed { iteration, report, results, gradients })
}
