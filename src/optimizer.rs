//! AdamW over the flat parameter store, the learning-rate schedule, and the fused EMA update of the
//! mean teacher.

use crate::device::Device;
use crate::ops::AdamW;
use crate::params::Weights;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The hyperparameters of AdamW other than the learning rate (Loshchilov & Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// The decay rates β1 and β2 of the moments.
    pub betas: [f64; 2],
    /// The term added to the denominator.
    pub eps: f64,
    /// The decoupled weight decay.
    pub weight_decay: f64,
}

/// How the learning rate changes over a run: linear warm-up, then linear decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The number of linear warm-up iterations.
    pub warmup: u64,
    /// The fraction of the learning rate at which the warm-up starts.
    pub warmup_ratio: f64,
    /// The iteration at which the rate reaches 0.
    pub end: u64,
}

/// The optimizer state: the moments of one network's parameters and the multipliers of their
/// parameter groups.
pub struct Optimizer {
    /// The first moments, laid out like the parameters.
    pub exp_avg: Tensor,
    /// The second moments, laid out like the parameters.
    pub exp_avg_sq: Tensor,
    /// The iteration of the first update that the moments hold, from which the bias correction
    /// counts. It is negative if they are older than the run's iterations.
    pub first: i64,
    /// The multipliers of learning rate and weight decay for each chunk of the flat store:
    /// chunks,2.
    multipliers: Tensor,
    /// The first chunk of the parameters that learn later than the others; the number of chunks if
    /// all learn from the start.
    late: usize,
    settings: AdamWSettings,
}

/// The scalars of one update, as the kernel takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateNumbers {
    /// The learning rate.
    pub lr: f64,
    /// The weight decay.
    pub weight_decay: f64,
    /// The bias correction 1 - β1^t of the first moment at the t-th update.
    pub bias_correction1: f64,
    /// The bias correction √(1 - β2^t) of the second moment at the t-th update.
    pub bias_correction2: f64,
    /// The EMA decay: the weight of the teacher's previous values.
    pub alpha: f64,
}

impl UpdateNumbers {
    /// Computes the scalars of the `t`-th update, counting from 1. `alpha` is the EMA decay, see
    /// [`teacher_alpha`].
    pub fn new(settings: &AdamWSettings, lr: f64, t: u64, alpha: f64) -> UpdateNumbers {
        let remaining = |beta: f64| 1.0 - beta.powi(t.min(i32::MAX as u64) as i32);
        UpdateNumbers {
            lr,
            weight_decay: settings.weight_decay,
            bias_correction1: remaining(settings.betas[0]),
            bias_correction2: remaining(settings.betas[1]).sqrt(),
            alpha,
        }
    }

    /// Returns the scalars in the order in which the kernel reads them.
    pub fn to_array(self) -> [f32; 5] {
        let UpdateNumbers { lr, weight_decay, bias_correction1, bias_correction2, alpha } = self;
        [lr, weight_decay, bias_correction1, bias_correction2, alpha].map(|x| x as f32)
    }
}

/// Returns the learning rate at an iteration, counting from 0: a linear decay, scaled by the linear
/// warm-up at first.
///
/// This is mmcv's `poly` policy with power 1 and `warmup='linear'`.
pub fn learning_rate(base: f64, schedule: &Schedule, iteration: u64) -> f64 {
    let done = (iteration as f64 / schedule.end.max(1) as f64).min(1.0);
    let regular = base * (1.0 - done);
    if iteration >= schedule.warmup {
        return regular;
    }
    let missing = 1.0 - iteration as f64 / schedule.warmup as f64;
    regular * (1.0 - missing * (1.0 - schedule.warmup_ratio))
}

/// Returns the EMA decay of the teacher update that precedes `iteration` (Tarvainen & Valpola
/// 2017). It rises to `limit`.
pub fn teacher_alpha(limit: f64, iteration: u64) -> f64 {
    limit.min(1.0 - 1.0 / (iteration as f64 + 1.0))
}

impl Optimizer {
    /// Creates an optimizer with zero moments. `multipliers` maps a parameter's name to the factors
    /// of its learning rate and weight decay.
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
                first: 0,
                multipliers: device.upload_real(&[owners.len(), 2], &by_chunk)?,
                late: owners.len(),
                settings,
            })
        })
    }

    /// Gives the last parameters of the store, those whose names begin with `prefix`, numbers of
    /// their own in each update.
    ///
    /// # Errors
    /// Returns a shape error if others follow them.
    pub fn delay(&mut self, weights: &Weights, prefix: &str) -> Result<()> {
        let (spec, owners) = (weights.spec(), weights.spec().chunk_owners());
        let late = |owner: &usize| spec.params()[*owner].name.starts_with(prefix);
        self.late = owners.iter().position(late).unwrap_or(owners.len());
        if owners[self.late..].iter().all(late) {
            return Ok(());
        }
        Err(Error::shape("adamw", format!("other parameters follow {prefix}")))
    }

    /// Updates `student` and, in the same kernel, the EMA in `teacher`. Nothing changes if `failed`
    /// is set. `numbers` is [`UpdateNumbers::to_array`] on the device, followed by that of the
    /// delayed parameters if there are any.
    ///
    /// # Errors
    /// Returns a shape error if `student` has no gradients.
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
        let chunks = self.multipliers.dim(0);
        let parts = [(0, self.late), (self.late, chunks)];
        for (which, (begin, end)) in parts.into_iter().enumerate().filter(|(_, p)| p.0 < p.1) {
            let part = |flat: &Tensor| {
                let size = flat.len() / chunks;
                flat.slice(begin * size, &[(end - begin) * size])
            };
            let teacher = teacher.as_deref();
            let optional = |flat: Option<&Tensor>| flat.map(part).transpose();
            AdamW {
                values: &mut part(&student.values)?,
                grads: &part(grads)?,
                exp_avg: &mut part(&self.exp_avg)?,
                exp_avg_sq: &mut part(&self.exp_avg_sq)?,
                teacher: optional(teacher.map(|t| &t.values))?.as_mut(),
                low_precision: optional(student.low_precision.as_ref())?.as_mut(),
                teacher_low_precision: optional(teacher.and_then(|t| t.low_precision.as_ref()))?
                    .as_mut(),
                multipliers: &self.multipliers.slice(2 * begin, &[end - begin, 2])?,
                schedule: &numbers.slice(5 * which, &[5])?,
                failed,
                betas,
                eps,
            }
            .run(device)?;
        }
        Ok(())
    }
}
