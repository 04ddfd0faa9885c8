//! Layers with parameters, and the state of a forward pass that they share.

use crate::Result;
use crate::device::group::Slots;
use crate::ops::{self, Conv, DropPath, Mode, Norm};
use crate::params::{BufferId, Init, Layout, Param, ParamId, Spec, Weights};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// The mode of the batch norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchNormMode {
    /// Training: normalize with the statistics of the batch and update the running statistics.
    Train,
    /// Recomputation: normalize with the statistics of the batch, but leave the running statistics
    /// alone, which the first forward pass has already updated.
    Recompute,
    /// Evaluation: normalize with the running statistics.
    Eval,
}

/// The random state of drop-path and dropout in one forward pass.
#[derive(Clone)]
pub struct DropoutRng {
    /// A u64 on the device, drawn anew in every step.
    pub key: Tensor,
    /// The index that distinguishes this pass from the others of the step.
    pub pass: usize,
    /// The slots of the pass's images.
    pub slots: Slots,
}

/// The number of random streams reserved per pass; no network has this many dropout sites.
const SITES: usize = 1024;

/// The state of one forward pass: its weights and modes.
#[derive(Clone)]
pub struct Pass<'a> {
    /// The tape that records the ops.
    pub tape: &'a Tape,
    /// The weights that the layers use.
    pub weights: &'a Weights,
    /// The mode of the batch norms.
    pub batch_norm: BatchNormMode,
    /// The random state of drop-path and dropout; `None` (evaluation, the teacher) disables them.
    pub dropout_rng: Option<DropoutRng>,
}

impl Pass<'_> {
    /// Returns the same pass for another input (the detail crop), with different random numbers.
    pub(super) fn part(&self, part: usize) -> Self {
        let dropout_rng =
            self.dropout_rng.as_ref().map(|d| DropoutRng { pass: d.pass * 2 + part, ..d.clone() });
        Pass { dropout_rng, ..self.clone() }
    }

    /// Runs `f` within the profiling scope of the layer that owns the parameter.
    fn layer<R>(&self, parameter: ParamId, f: impl FnOnce() -> R) -> R {
        let name = || self.weights.spec().layer_of(parameter).into();
        self.tape.device().layer(name, f)
    }

    /// Runs part of the pass with activation checkpointing: see [`Tape::checkpointed`].
    pub(super) fn checkpointed<const N: usize, const M: usize>(
        &self,
        inputs: [&Tensor; N],
        f: impl Fn(&Pass, [Tensor; N]) -> Result<[Tensor; M]> + 'static,
    ) -> Result<[Tensor; M]> {
        let (weights, dropout_rng) = (self.weights.clone(), self.dropout_rng.clone());
        let batch_norm = self.batch_norm;
        self.tape.checkpointed(inputs, move |tape, inputs, again| {
            let batch_norm = match batch_norm {
                BatchNormMode::Train if again => BatchNormMode::Recompute,
                other => other,
            };
            let dropout_rng = dropout_rng.clone();
            f(&Pass { tape, weights: &weights, batch_norm, dropout_rng }, inputs)
        })
    }

    pub(super) fn drop_path(&self, rate: f32, site: usize) -> Option<DropPath> {
        let dropout_rng = self.dropout_rng.as_ref().filter(|_| rate > 0.0)?;
        let DropoutRng { key, pass, slots } = dropout_rng.clone();
        Some(DropPath { rate: rate as f64, key, stream: pass * SITES + site, slots })
    }
}

/// A fully connected layer or a 1×1 convolution; the reference stores the weights of the latter as
/// K,C,1,1.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    pub(super) weight: ParamId,
    pub(super) bias: Option<ParamId>,
}

impl Linear {
    /// Adds a fully connected layer to `spec`.
    pub fn new(
        spec: &mut Spec,
        name: &str,
        [inputs, outputs]: [usize; 2],
        weight: Init,
        bias: Init,
    ) -> Linear {
        let weight = spec.param(format!("{name}.weight"), &[outputs, inputs], Layout::Same, weight);
        Linear { weight, bias: Some(bias_of(spec, name, outputs, bias)) }
    }

    /// Adds a 1×1 convolution to `spec`; without `bias` it has none.
    pub fn conv1x1(
        spec: &mut Spec,
        name: &str,
        [inputs, outputs]: [usize; 2],
        weight: Init,
        bias: Option<Init>,
    ) -> Linear {
        let shape = [outputs, inputs, 1, 1];
        let weight = spec.param(format!("{name}.weight"), &shape, Layout::Filter, weight);
        Linear { weight, bias: bias.map(|init| bias_of(spec, name, outputs, init)) }
    }

    /// Returns the output in the storage type.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        let weight = pass.weights.param(self.weight)?;
        pass.layer(self.weight, || ops::linear(pass.tape, x, &weight, bias.as_ref()))
    }

    /// Returns the output in the compute type, not cast to the storage type.
    pub fn forward_wide(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        let weight = pass.weights.param(self.weight)?;
        pass.layer(self.weight, || ops::linear_wide(pass.tape, x, &weight, bias.as_ref()))
    }

    /// Returns the output for the concatenation of all `inner` layers' outputs, resized to `size`.
    /// This layer must have no bias.
    pub fn forward_resized(
        &self,
        pass: &Pass,
        inner: &[Linear],
        xs: &[Tensor],
        size: (usize, usize),
    ) -> Result<Tensor> {
        let weight = pass.weights.param(self.weight)?;
        // Both ways compute the same up to rounding; only the first has gradients.
        if pass.weights.grads.is_some() {
            let ys = (inner.iter().zip(xs))
                .map(|(inner, x)| inner.forward(pass, x))
                .collect::<Result<Vec<_>>>()?;
            let way = || ops::linear_of_resized(pass.tape, &ys, size, &weight);
            return pass.layer(self.weight, way);
        }
        let inner = (inner.iter())
            .map(|inner| {
                let bias = inner.bias.map(|id| pass.weights.param(id)).transpose()?;
                Ok((pass.weights.param(inner.weight)?, bias))
            })
            .collect::<Result<Vec<_>>>()?;
        let device = pass.tape.device();
        pass.layer(self.weight, || ops::folded_linear_of_resized(device, xs, size, &inner, &weight))
    }
}

fn bias_of(spec: &mut Spec, name: &str, outputs: usize, init: Init) -> ParamId {
    spec.param(format!("{name}.bias"), &[outputs], Layout::Same, init)
}

fn bias(spec: &mut Spec, name: &str, outputs: usize) -> ParamId {
    bias_of(spec, name, outputs, Init::Constant(0.0))
}

/// Kaiming-normal initialization by fan-out with the gain of a ReLU (He et al. 2015), where the
/// fan-out is `outputs` times the filter's taps.
pub fn kaiming_normal(outputs: usize, kernel: usize) -> Init {
    Init::Normal((2.0 / (kernel * kernel * outputs) as f32).sqrt())
}

/// PyTorch's default for the weights and biases of `nn.Linear` and of a 1×1 `nn.Conv2d`.
pub fn torch_default(inputs: usize) -> Init {
    Init::Uniform(1.0 / (inputs as f32).sqrt())
}

/// A convolution with a square filter.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    pub(super) weight: ParamId,
    pub(super) bias: Option<ParamId>,
    pub(super) geometry: Conv,
}

impl Convolution {
    /// Adds a convolution with a `kernel`×`kernel` filter to `spec`.
    pub fn new(
        spec: &mut Spec,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        geometry: Conv,
        with_bias: bool,
        init: Init,
    ) -> Convolution {
        let shape = [outputs, inputs, kernel, kernel];
        let weight = spec.param(format!("{name}.weight"), &shape, Layout::Filter, init);
        Convolution { weight, bias: with_bias.then(|| bias(spec, name, outputs)), geometry }
    }

    /// Returns the output in the storage type.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        let weight = pass.weights.param(self.weight)?;
        pass.layer(self.weight, || ops::conv(pass.tape, x, &weight, bias.as_ref(), self.geometry))
    }

    /// Returns the output in the compute type, not cast to the storage type.
    pub fn forward_wide(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        let weight = pass.weights.param(self.weight)?;
        pass.layer(self.weight, || {
            ops::conv_wide(pass.tape, x, &weight, bias.as_ref(), self.geometry)
        })
    }
}

/// A depthwise 3×3 convolution with stride 1 that preserves the spatial size.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise {
    pub(super) weight: ParamId,
    pub(super) bias: Option<ParamId>,
    pub(super) dilation: usize,
}

impl Depthwise {
    /// Adds a depthwise convolution to `spec`, with filters initialized by `init`.
    pub fn new(
        spec: &mut Spec,
        name: &str,
        channels: usize,
        dilation: usize,
        with_bias: bool,
        init: Init,
    ) -> Depthwise {
        let shape = [channels, 1, 3, 3];
        let weight = spec.param(format!("{name}.weight"), &shape, Layout::Depthwise, init);
        Depthwise { weight, bias: with_bias.then(|| bias(spec, name, channels)), dilation }
    }

    fn params(&self, pass: &Pass) -> Result<(Param, Option<Param>)> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        Ok((pass.weights.param(self.weight)?, bias))
    }

    /// Applies the convolution.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = self.params(pass)?;
        pass.layer(self.weight, || {
            ops::depthwise(pass.tape, x, &weight, bias.as_ref(), self.dilation)
        })
    }

    /// Applies the convolution without dilation and a GELU to its output, fused into one op.
    pub fn forward_gelu(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = self.params(pass)?;
        pass.layer(self.weight, || ops::depthwise_gelu(pass.tape, x, &weight, bias.as_ref()))
    }
}

/// A layer norm over channels.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    pub(super) weight: ParamId,
    pub(super) bias: ParamId,
    pub(super) eps: f64,
}

impl LayerNorm {
    /// Adds a layer norm to `spec`.
    pub fn new(spec: &mut Spec, name: &str, channels: usize, eps: f64) -> LayerNorm {
        let one = Init::Constant(1.0);
        let weight = spec.param(format!("{name}.weight"), &[channels], Layout::Same, one);
        LayerNorm { weight, bias: bias(spec, name, channels), eps }
    }

    /// Returns the normalized input in the storage type.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let norm = self.norm(pass)?;
        pass.layer(self.weight, || ops::layernorm(pass.tape, x, &norm))
    }

    /// Returns the normalized input in the compute type, to start a residual stream.
    pub fn stream(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let norm = self.norm(pass)?;
        pass.layer(self.weight, || ops::layernorm_stream(pass.tape, x, &norm))
    }

    /// Returns the sum of `x` and a residual branch, to which drop-path may apply, and the norm of
    /// that sum.
    pub fn add(
        &self,
        pass: &Pass,
        x: &Tensor,
        branch: &Tensor,
        path: Option<DropPath>,
    ) -> Result<(Tensor, Tensor)> {
        let norm = self.norm(pass)?;
        pass.layer(self.weight, || ops::add_layernorm(pass.tape, x, branch, path, &norm))
    }

    fn norm(&self, pass: &Pass) -> Result<Norm> {
        let (weight, bias) = (pass.weights.param(self.weight)?, pass.weights.param(self.bias)?);
        Ok(Norm { weight, bias, eps: self.eps })
    }
}

/// A batch norm over channels.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    pub(super) weight: ParamId,
    pub(super) bias: ParamId,
    pub(super) mean: BufferId,
    pub(super) var: BufferId,
    tracked: BufferId,
}

impl BatchNorm {
    pub(super) const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// Adds a batch norm to `spec`, with weights initialized to `gain`.
    pub fn new(spec: &mut Spec, name: &str, channels: usize, gain: f32) -> BatchNorm {
        let gain = Init::Constant(gain);
        BatchNorm {
            weight: spec.param(format!("{name}.weight"), &[channels], Layout::Same, gain),
            bias: bias(spec, name, channels),
            mean: spec.buffer(format!("{name}.running_mean"), &[channels], 0.0),
            var: spec.buffer(format!("{name}.running_var"), &[channels], 1.0),
            tracked: spec.buffer(format!("{name}.num_batches_tracked"), &[], 0.0),
        }
    }

    /// Applies the norm.
    pub fn plain(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        self.forward(pass, x, false)
    }

    /// Applies the norm and a ReLU.
    pub fn forward_relu(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        self.forward(pass, x, true)
    }

    fn forward(&self, pass: &Pass, x: &Tensor, relu: bool) -> Result<Tensor> {
        let weights = pass.weights;
        let train = Mode::Train { momentum: Self::MOMENTUM };
        let (mode, buffer): (_, fn(&Weights, BufferId) -> Result<Tensor>) = match pass.batch_norm {
            BatchNormMode::Train | BatchNormMode::Recompute => (train, Weights::pending),
            BatchNormMode::Eval => (Mode::Eval, Weights::buffer),
        };
        let buffer = |weights: &Weights, id| {
            let buffer = buffer(weights, id)?;
            if pass.batch_norm != BatchNormMode::Recompute {
                return Ok(buffer);
            }
            // The forward pass has already updated the statistics, so the kernel updates a copy.
            let mut copy = pass.tape.device().empty_like(&buffer)?;
            pass.tape.device().copy(&buffer, &mut copy)?;
            Ok::<_, crate::Error>(copy)
        };
        let norm = ops::BatchNorm {
            weight: &weights.param(self.weight)?,
            bias: &weights.param(self.bias)?,
            running_mean: buffer(weights, self.mean)?,
            running_var: buffer(weights, self.var)?,
            tracked: Some(buffer(weights, self.tracked)?),
        };
        pass.layer(self.weight, || ops::batchnorm(pass.tape, x, norm, Self::EPS, mode, relu))
    }
}

/// Channel dropout before the classifier.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The probability of dropping a channel.
    pub rate: f32,
    /// The random stream within a pass.
    pub site: usize,
}

impl Dropout {
    /// Applies dropout, or returns `x` where the pass drops nothing.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        match pass.drop_path(self.rate, self.site) {
            Some(DropPath { rate, key, stream, slots }) => {
                ops::dropout2d(pass.tape, x, rate, &key, stream, slots)
            }
            None => Ok(x.clone()),
        }
    }
}
