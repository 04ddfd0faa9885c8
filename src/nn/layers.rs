//! Layers with parameters, and the state of a forward pass that they share.

use crate::Result;
use crate::ops::{self, Conv, DropPath, Mode, Norm};
use crate::params::{BufferId, Init, Layout, Param, ParamId, Spec, Weights};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Where batch norms take their statistics from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// From the batch; the running ones move.
    Batch,
    /// From a batch that was seen before; the running ones have moved already.
    Again,
    /// The running ones.
    Running,
}

/// Random dropping (drop-path, dropout) of one forward pass.
#[derive(Clone)]
pub struct Dropping {
    /// One u64 on the device, drawn anew every step.
    pub key: Tensor,
    /// Tells this pass apart from the others of the step.
    pub pass: usize,
}

/// Streams of random numbers within a pass: more than a network has places that drop.
const SITES: usize = 1024;

/// One forward pass of a network: with which weights, in which mode.
#[derive(Clone)]
pub struct Pass<'a> {
    pub tape: &'a Tape,
    pub weights: &'a Weights,
    pub statistics: Statistics,
    /// None: nothing is dropped (evaluation, the teacher).
    pub dropping: Option<Dropping>,
}

impl Pass<'_> {
    /// The same pass over another input (the detail crop): its random numbers differ.
    pub(super) fn part(&self, part: usize) -> Self {
        let dropping = self
            .dropping
            .as_ref()
            .map(|d| Dropping { key: d.key.clone(), pass: d.pass * 2 + part });
        Pass { dropping, ..self.clone() }
    }

    /// Runs `f` on behalf of the layer that a parameter belongs to.
    fn layer<R>(&self, parameter: ParamId, f: impl FnOnce() -> R) -> R {
        let name = || self.weights.spec().layer_of(parameter).into();
        self.tape.device().layer(name, f)
    }

    /// Runs a part of the pass of which the tape keeps the inputs alone: see [`Tape::recomputed`].
    pub(super) fn recomputed<const N: usize, const M: usize>(
        &self,
        inputs: [&Tensor; N],
        f: impl Fn(&Pass, [Tensor; N]) -> Result<[Tensor; M]> + 'static,
    ) -> Result<[Tensor; M]> {
        let (weights, dropping) = (self.weights.clone(), self.dropping.clone());
        let statistics = self.statistics;
        self.tape.recomputed(inputs, move |tape, inputs, again| {
            let statistics = match statistics {
                Statistics::Batch if again => Statistics::Again,
                other => other,
            };
            let dropping = dropping.clone();
            f(&Pass { tape, weights: &weights, statistics, dropping }, inputs)
        })
    }

    pub(super) fn drop_path(&self, rate: f32, site: usize) -> Option<DropPath> {
        let dropping = self.dropping.as_ref().filter(|_| rate > 0.0)?;
        let stream = dropping.pass * SITES + site;
        Some(DropPath { rate: rate as f64, key: dropping.key.clone(), stream })
    }
}

/// Fully connected, or a 1×1 convolution: the reference stores the latter as K,C,1,1.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
}

impl Linear {
    pub fn new(spec: &mut Spec, name: &str, inputs: usize, outputs: usize) -> Linear {
        let init = Init::TruncatedNormal(0.02);
        let weight = spec.param(format!("{name}.weight"), &[outputs, inputs], Layout::Same, init);
        Linear { weight, bias: Some(bias(spec, name, outputs)) }
    }

    /// A 1×1 convolution, started as `init` says.
    pub fn conv1x1(
        spec: &mut Spec,
        name: &str,
        [inputs, outputs]: [usize; 2],
        with_bias: bool,
        init: Init,
    ) -> Linear {
        let shape = [outputs, inputs, 1, 1];
        let weight = spec.param(format!("{name}.weight"), &shape, Layout::Filter, init);
        Linear { weight, bias: with_bias.then(|| bias(spec, name, outputs)) }
    }

    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        let weight = pass.weights.param(self.weight)?;
        pass.layer(self.weight, || ops::linear(pass.tape, x, &weight, bias.as_ref()))
    }

    /// Not rounded to an operand.
    pub fn forward_wide(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        let weight = pass.weights.param(self.weight)?;
        pass.layer(self.weight, || ops::linear_wide(pass.tape, x, &weight, bias.as_ref()))
    }
}

fn bias(spec: &mut Spec, name: &str, outputs: usize) -> ParamId {
    spec.param(format!("{name}.bias"), &[outputs], Layout::Same, Init::Constant(0.0))
}

/// He initialisation by fan-out, as the reference starts convolutions.
pub fn he(outputs: usize, kernel: usize, groups: usize) -> Init {
    Init::Normal((2.0 / (kernel * kernel * outputs / groups) as f32).sqrt())
}

/// A convolution with a square filter.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    weight: ParamId,
    bias: Option<ParamId>,
    geometry: Conv,
}

impl Convolution {
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

    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        let weight = pass.weights.param(self.weight)?;
        pass.layer(self.weight, || ops::conv(pass.tape, x, &weight, bias.as_ref(), self.geometry))
    }

    /// Not rounded to an operand.
    pub fn forward_wide(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        let weight = pass.weights.param(self.weight)?;
        pass.layer(self.weight, || {
            ops::conv_wide(pass.tape, x, &weight, bias.as_ref(), self.geometry)
        })
    }
}

/// A depthwise 3×3 convolution that keeps the size.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise {
    weight: ParamId,
    bias: Option<ParamId>,
    dilation: usize,
}

impl Depthwise {
    pub fn new(
        spec: &mut Spec,
        name: &str,
        channels: usize,
        dilation: usize,
        with_bias: bool,
    ) -> Depthwise {
        let (shape, init) = ([channels, 1, 3, 3], he(channels, 3, channels));
        let weight = spec.param(format!("{name}.weight"), &shape, Layout::Depthwise, init);
        Depthwise { weight, bias: with_bias.then(|| bias(spec, name, channels)), dilation }
    }

    fn params(&self, pass: &Pass) -> Result<(Param, Option<Param>)> {
        let bias = self.bias.map(|id| pass.weights.param(id)).transpose()?;
        Ok((pass.weights.param(self.weight)?, bias))
    }

    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = self.params(pass)?;
        pass.layer(self.weight, || {
            ops::depthwise(pass.tape, x, &weight, bias.as_ref(), self.dilation)
        })
    }

    /// The convolution and a GELU on its output, as one op.
    pub fn forward_gelu(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = self.params(pass)?;
        pass.layer(self.weight, || ops::depthwise_gelu(pass.tape, x, &weight, bias.as_ref()))
    }
}

/// A layer norm over channels.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    weight: ParamId,
    bias: ParamId,
    eps: f64,
}

impl LayerNorm {
    pub fn new(spec: &mut Spec, name: &str, channels: usize, eps: f64) -> LayerNorm {
        let one = Init::Constant(1.0);
        let weight = spec.param(format!("{name}.weight"), &[channels], Layout::Same, one);
        LayerNorm { weight, bias: bias(spec, name, channels), eps }
    }

    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let norm = self.norm(pass)?;
        pass.layer(self.weight, || ops::layernorm(pass.tape, x, &norm))
    }

    /// The norm as a residual stream.
    pub fn stream(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let norm = self.norm(pass)?;
        pass.layer(self.weight, || ops::layernorm_stream(pass.tape, x, &norm))
    }

    /// `x` plus a branch that may be dropped, and that sum's norm.
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
    weight: ParamId,
    bias: ParamId,
    mean: BufferId,
    var: BufferId,
    tracked: BufferId,
}

impl BatchNorm {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// Its weights start at `gain`.
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

    pub fn plain(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        self.forward(pass, x, false)
    }

    /// With a ReLU after it.
    pub fn rectified(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        self.forward(pass, x, true)
    }

    fn forward(&self, pass: &Pass, x: &Tensor, relu: bool) -> Result<Tensor> {
        let weights = pass.weights;
        let train = Mode::Train { momentum: Self::MOMENTUM };
        let (mode, buffer): (_, fn(&Weights, BufferId) -> Result<Tensor>) = match pass.statistics {
            Statistics::Batch | Statistics::Again => (train, Weights::pending),
            Statistics::Running => (Mode::Eval, Weights::buffer),
        };
        let buffer = |weights: &Weights, id| {
            let buffer = buffer(weights, id)?;
            if pass.statistics != Statistics::Again {
                return Ok(buffer);
            }
            // What moves is a copy.
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
    pub rate: f32,
    pub site: usize,
}

impl Dropout {
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        match pass.drop_path(self.rate, self.site) {
            Some(drop) => ops::dropout2d(pass.tape, x, drop.rate, &drop.key, drop.stream),
            None => Ok(x.clone()),
        }
    }
}
