//! What whole iterations of all methods share: recorded draws as inputs, and norms of parameters.

use std::collections::HashMap;

use udass_raw::device::Device;
use udass_raw::params::{ParamSpec, Weights};
use udass_raw::tensor::Tensor;
use udass_raw::uda::inputs::ImageAugment;

use super::said;
use crate::support::cases::Outcome;
use crate::support::report::Report;
use crate::support::uda::{Augment, Choice};

/// Converts the recorded augmentation of an image.
pub(super) fn one(augment: &Augment, image: usize) -> ImageAugment {
    let mut out = ImageAugment { factors: [1.0, 1.0, 1.0, 0.0], order: [0, 1, 2, 3], sigma: 1.0 };
    if let Some(j) = &augment.jitter {
        out.factors = [&j.brightness, &j.contrast, &j.saturation, &j.hue].map(|f| f[image]);
        out.order = j.order.map(i32::from);
    }
    if let Some(sigma) = augment.sigma {
        out.sigma = sigma as f32;
    }
    out
}

/// Converts a recorded choice to `most` uniform numbers, of which it needs the first.
pub(super) fn row(choice: Option<&Choice>, most: usize) -> Vec<f32> {
    let mut row: Vec<f32> =
        choice.map_or(Vec::new(), |c| c.uniforms().into_iter().map(|u| u as f32).collect());
    row.resize(most, 0.5);
    row
}

/// Returns the l2 norm of each parameter, in the order of the spec.
pub(super) fn norms(
    device: &Device,
    weights: &Weights,
    flat: &Tensor,
) -> Outcome<Vec<(String, f64)>> {
    let norm = |(i, param): (usize, &ParamSpec)| {
        let values = weights.export(device, flat, i).map_err(said)?;
        let square: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
        Ok((param.name.clone(), square.sqrt()))
    };
    weights.spec().params().iter().enumerate().map(norm).collect()
}

/// Compares norms that are stored in the order of `names`.
pub(super) fn compare_norms(
    report: &mut Report,
    key: &str,
    norms: &[(String, f64)],
    names: &[String],
) -> Outcome {
    let by_name: HashMap<&str, f64> = norms.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let ordered: Vec<f64> = names
        .iter()
        .map(|name| by_name.get(name.as_str()).copied().ok_or(format!("no parameter {name}")))
        .collect::<Result<_, _>>()?;
    report.compare(key, &[names.len()], &ordered);
    Ok(())
}
