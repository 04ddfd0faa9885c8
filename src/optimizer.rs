//! AdamW over the flat store, its schedule, and the update of the mean teacher that goes with it.

use crate::config::{OptimizerConfig, ScheduleConfig};
use crate::device::Device;
use crate::ops::AdamW;
use crate::params::Weights;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Moments and rules of one network's parameters.
pub struct Optimizer {
    pub exp_avg: Tensor,
    pub exp_avg_sq: Tensor,
    /// Multipliers of rate and decay, by chunk of the flat store.
    rules: Tensor,
    betas: [f64; 2],
    eps: f64,
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
    pub fn new(config: &OptimizerConfig, lr: f64, t: u64, alpha: f64) -> UpdateNumbers {
        let remaining = |beta: f64| 1.0 - beta.powi(t.min(i32::MAX as u64) as i32);
        UpdateNumbers {
            lr,
            weight_decay: config.weight_decay,
            correction1: remaining(config.betas[0]),
            correction2: remaining(config.betas[1]).sqrt(),
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
pub fn learning_rate(base: f64, schedule: &ScheduleConfig, iteration: u64) -> f64 {
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
    pub fn new(device: &Device, weights: &Weights, config: &OptimizerConfig) -> Result<Optimizer> {
        let spec = weights.spec();
        let multipliers: Vec<[f32; 2]> = (spec.params().iter())
            .map(|param| {
                let rule = config.rules.iter().find(|rule| param.name.contains(&rule.contains));
                rule.map_or([1.0, 1.0], |rule| [rule.lr as f32, rule.decay as f32])
            })
            .collect();
        let owners = spec.chunk_owners();
        let rules: Vec<f32> = owners.iter().flat_map(|&owner| multipliers[owner]).collect();
        device.scope("optimizer", || {
            Ok(Optimizer {
                exp_avg: device.zeros(weights.values.shape(), device.real())?,
                exp_avg_sq: device.zeros(weights.values.shape(), device.real())?,
                rules: device.upload_real(&[owners.len(), 2], &rules)?,
                betas: config.betas,
                eps: config.eps,
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
            rules: &self.rules,
            schedule: numbers,
            failed,
            betas: self.betas,
            eps: self.eps,
        }
        .run(device)
    }
}
