//! AdamW over the flat store, its schedule, and the update of the mean teacher that goes with it.

use crate::device::Device;
use crate::ops::AdamW;
use crate::params::Weights;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What AdamW needs beside a learning rate (Loshchilov & Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
}

/// How the learning rate changes over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Iterations of linear warm-up.
    pub warmup: u64,
    /// Share of the rate that the warm-up starts from.
    pub warmup_ratio: f64,
    /// The iteration at which the rate reaches 0.
    pub end: u64,
}

/// The moments of one network's parameters, and how each parameter is updated.
pub struct Optimizer {
    pub exp_avg: Tensor,
    pub exp_avg_sq: Tensor,
    /// Multipliers of learning rate and weight decay, by chunk of the flat store.
    multipliers: Tensor,
    settings: AdamWSettings,
}

/// Numbers of one update, as the kernel takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateNumbers {
    pub lr: f64,
    pub weight_decay: f64,
    /// 1 - β1^t and √(1 - β2^t) at the t-th update.
    pub correction1: f64,
    pub correction2: f64,
    /// Weight of the old teacher.
    pub alpha: f64,
}

impl UpdateNumbers {
    /// At the `t`-th update, counting from 1. `alpha`: see [`teacher_alpha`].
    pub fn new(settings: &AdamWSettings, lr: f64, t: u64, alpha: f64) -> UpdateNumbers {
        let remaining = |beta: f64| 1.0 - beta.powi(t.min(i32::MAX as u64) as i32);
        UpdateNumbers {
            lr,
            weight_decay: settings.weight_decay,
            correction1: remaining(settings.betas[0]),
            correction2: remaining(settings.betas[1]).sqrt(),
            alpha,
        }
    }

    pub fn to_array(self) -> [f32; 5] {
        let UpdateNumbers { lr, weight_decay, correction1, correction2, alpha } = self;
        [lr, weight_decay, correction1, correction2, alpha].map(|x| x as f32)
    }
}

/// Learning rate at an iteration, counting from 0: linear warm-up under a linear decay.
///
/// mmcv's `poly` policy with power 1 and `warmup='linear'`.
pub fn learning_rate(base: f64, schedule: &Schedule, iteration: u64) -> f64 {
    let done = (iteration as f64 / schedule.end.max(1) as f64).min(1.0);
    let regular = base * (1.0 - done);
    if iteration >= schedule.warmup {
        return regular;
    }
    let missing = 1.0 - iteration as f64 / schedule.warmup as f64;
    regular * (1.0 - missing * (1.0 - schedule.warmup_ratio))
}

/// Weight of the old teacher in the update that precedes `iteration` (Tarvainen & Valpola 2017).
pub fn teacher_alpha(limit: f64, iteration: u64) -> f64 {
    limit.min(1.0 - 1.0 / (iteration as f64 + 1.0))
}

impl Optimizer {
    /// Moments of 0. `multipliers` gives a parameter's own learning rate and weight decay by its name,
    /// as multiples of the optimizer's.
    pub fn new(
        device: &Device,
        weights: &Weights,
        settings: AdamWSettings,
        multipliers: impl Fn(&str) -> (f64, f64),
    ) -> Result<Optimizer> {
        let spec = weights.spec();
        let by_parameter: Vec<[f32; 2]> = (spec.params().iter())
            .map(|param| {
                let (lr, decay) = multipliers(&param.name);
                [lr as f32, decay as f32]
            })
            .collect();
        let owners = spec.chunk_owners();
        let by_chunk: Vec<f32> = owners.iter().flat_map(|&owner| by_parameter[owner]).collect();
        device.scope("optimizer", || {
            Ok(Optimizer {
                exp_avg: device.zeros(weights.values.shape(), device.real())?,
                exp_avg_sq: device.zeros(weights.values.shape(), device.real())?,
                multipliers: device.upload_real(&[owners.len(), 2], &by_chunk)?,
                settings,
            })
        })
    }

    /// One update of `student` and, with it, of `teacher`; none of either where `failed` is set.
    /// `numbers`: [`UpdateNumbers::to_array`] on the device.
    pub fn update(
        &mut self,
        device: &Device,
        student: &mut Weights,
        teacher: Option<&mut Weights>,
        numbers: &Tensor,
        failed: &Tensor,
    ) -> Result<()> {
        let Some(grads) = &student.grads else {
            return Err(Error::shape("adamw", "these weights have no gradients"));
        };
        let AdamWSettings { betas, eps, .. } = self.settings;
        let (teacher, teacher_shadow) =
            teacher.map_or((None, None), |t| (Some(&mut t.values), t.shadow.as_mut()));
        AdamW {
            values: &mut student.values,
            grads,
            exp_avg: &mut self.exp_avg,
            exp_avg_sq: &mut self.exp_avg_sq,
            teacher,
            shadow: student.shadow.as_mut(),
            teacher_shadow,
            multipliers: &self.multipliers,
            schedule: numbers,
            failed,
            betas,
            eps,
        }
        .run(device)
    }
}
