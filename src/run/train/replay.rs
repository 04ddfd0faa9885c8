//! Reruns an iteration that produced non-finite numbers.

use std::path::Path;

use super::initial_state;
use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::{batch, state};
use crate::config::Config;
use crate::run::build;
use crate::uda::report::Report;
use crate::uda::trace::Trace;
use crate::{Error, Result};

/// The result of rerunning an iteration.
pub struct Replayed {
    /// Number of the iteration, counting from 0.
    pub iteration: u64,
    /// The rerun's losses, and whether it failed again.
    pub report: Report,
    /// Names of non-finite intermediate results, in the order in which they were computed.
    pub results: Vec<String>,
    /// Names of the parameters with non-finite gradients.
    pub gradients: Vec<String>,
}

/// Reruns the iteration of a dump from the state before it, on the batch in the dump; no dataset
/// is needed. `device` replaces the run's `device.kind`.
///
/// # Errors
/// [`Error::Weights`] if the file is not such a dump.
pub fn replay(path: &Path, device: Option<&str>) -> Result<Replayed> {
    let file = TensorFile::open(path)?;
    let text = file.metadata("config");
    let text = text.ok_or_else(|| Error::weights(path, "contains no configuration"))?;
    let mut config = Config::from_toml(text, &format!("configuration in {}", path.display()))?;
    if let Some(kind) = device {
        config.device.kind = kind.into();
    }
    let device = build::device(&config)?;
    let mut training = initial_state::build(&config, &device, Some(&file))?;
    let iteration = state::load(&file, &mut training)?.next;
    let batch = batch::read(&file, iteration)?;
    training.load(&batch)?;
    let mut results = Vec::new();
    let mut check = |name: &str, tensor: &crate::tensor::Tensor| {
        if tensor.dtype() == device.real() {
            let numbers = device.read_f32(tensor)?;
            results.extend(numbers.iter().any(|x| !x.is_finite()).then(|| name.to_owned()));
        }
        Ok(())
    };
    let inputs = training.draw(iteration);
    let report = training.step_with(&inputs, Trace::to(&mut check))?;
    let mut gradients = Vec::new();
    let student = &training.student;
    if let Some(grads) = &student.grads {
        for (index, param) in student.spec().params().iter().enumerate() {
            let numbers = student.export(&device, grads, index)?;
            gradients.extend(numbers.iter().any(|x| !x.is_finite()).then(|| param.name.clone()));
        }
    }
    Ok(Replayed { iteration, report, results, gradients })
}
