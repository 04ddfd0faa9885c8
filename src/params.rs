//! The flat parameter store: all parameters of a network in one contiguous buffer. Gradients,
//! optimizer moments and the teacher's parameters use the same layout.
//!
//! A parameter is identified by its name in the state dict of the reference implementation. Its
//! memory layout may differ from the reference's ([`Layout`]); loading and exporting convert
//! between them.

use std::rc::Rc;

use crate::device::{Device, map};
use crate::dtype::DType;
use crate::ops::{round, to_operand};
use crate::rng::{Draw, Purpose};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Elements per chunk of the flat store. Each parameter starts at a chunk boundary, so a chunk
/// belongs to a single parameter.
pub const CHUNK: usize = 256;

/// How the layout of a tensor differs from the reference's state dict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The same layout as in the reference.
    Same,
    /// Convolution filters: K,C,R,S in the reference, K,R,S,C here.
    Filter,
    /// Depthwise filters: C,1,R,S in the reference, R,S,C here.
    Depthwise,
}

/// The initial values of a parameter when no weights are loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All elements have this value.
    Constant(f32),
    /// A normal distribution with this standard deviation.
    Normal(f32),
    /// A normal distribution with this standard deviation, without values beyond ±2: timm's
    /// `trunc_normal_`, whose default bounds are absolute, not multiples of the deviation.
    TruncatedNormal(f32),
    /// A uniform distribution between minus and plus this bound.
    Uniform(f32),
}

impl Init {
    fn sample(self, draw: &mut Draw) -> f32 {
        match self {
            Init::Constant(value) => value,
            Init::Normal(std) => (normal(draw) * std as f64) as f32,
            Init::TruncatedNormal(std) => loop {
                let value = normal(draw) * std as f64;
                if value.abs() <= 2.0 {
                    break value as f32;
                }
            },
            Init::Uniform(bound) => ((2.0 * draw.uniform() - 1.0) * bound as f64) as f32,
        }
    }
}

/// Draws from the standard normal distribution by the Box–Muller transform.
fn normal(draw: &mut Draw) -> f64 {
    // 1 - u keeps the logarithm finite.
    let (u, v) = (1.0 - draw.uniform(), draw.uniform());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// The name, shape, layout and initialization of one parameter or buffer.
#[derive(Clone, Debug)]
pub struct ParamSpec {
    /// The name in the state dict of the reference.
    pub name: String,
    /// The shape in the reference.
    pub shape: Vec<usize>,
    /// How the layout differs from the reference's.
    pub layout: Layout,
    /// The initial values.
    pub init: Init,
    /// The first element in the flat store.
    offset: usize,
}

impl ParamSpec {
    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the shape in the flat store.
    fn shape_here(&self) -> Vec<usize> {
        match (self.layout, self.shape.as_slice()) {
            (Layout::Filter, &[k, c, r, s]) => vec![k, r, s, c],
            (Layout::Depthwise, &[c, _, r, s]) => vec![r, s, c],
            _ => self.shape.clone(),
        }
    }

    /// Returns the index in the flat store of the element at `index` in the reference layout.
    fn place(&self, index: usize) -> usize {
        match (self.layout, self.shape.as_slice()) {
            (Layout::Filter, &[_, c, r, s]) => {
                let (k, rest) = (index / (c * r * s), index % (c * r * s));
                let (channel, tap) = (rest / (r * s), rest % (r * s));
                (k * r * s + tap) * c + channel
            }
            (Layout::Depthwise, &[c, _, r, s]) => (index % (r * s)) * c + index / (r * s),
            _ => index,
        }
    }
}

/// Identifies a parameter of a [`Spec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);
/// Identifies a buffer of a [`Spec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(usize);

/// Lists all parameters and buffers of a network in the order of the reference's modules.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    params: Vec<ParamSpec>,
    /// Running statistics of batch norms; the optimizer never updates them.
    buffers: Vec<ParamSpec>,
    params_len: usize,
    buffers_len: usize,
}

impl Spec {
    /// Adds a parameter and returns its id.
    pub fn param(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        layout: Layout,
        init: Init,
    ) -> ParamId {
        Self::push(&mut self.params, &mut self.params_len, name.into(), shape, layout, init);
        ParamId(self.params.len() - 1)
    }

    /// Adds a buffer whose elements start at `start` and returns its id.
    pub fn buffer(&mut self, name: impl Into<String>, shape: &[usize], start: f32) -> BufferId {
        let (list, len) = (&mut self.buffers, &mut self.buffers_len);
        Self::push(list, len, name.into(), shape, Layout::Same, Init::Constant(start));
        BufferId(self.buffers.len() - 1)
    }

    fn push(
        list: &mut Vec<ParamSpec>,
        end: &mut usize,
        name: String,
        shape: &[usize],
        layout: Layout,
        init: Init,
    ) {
        let spec = ParamSpec { name, shape: shape.into(), layout, init, offset: *end };
        *end += spec.len().div_ceil(CHUNK) * CHUNK;
        list.push(spec);
    }

    /// Returns all parameters in the order of their ids.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// Returns all buffers in the order of their ids.
    pub fn buffers(&self) -> &[ParamSpec] {
        &self.buffers
    }

    /// Returns the layer that a parameter belongs to, by the reference's name.
    pub fn layer_of(&self, id: ParamId) -> &str {
        let name = &self.params[id.0].name;
        name.rsplit_once('.').map_or(name, |(layer, _)| layer)
    }

    /// Returns the index of the owning parameter for every chunk of the flat store.
    pub fn chunk_owners(&self) -> Vec<usize> {
        let chunks = |p: &ParamSpec| p.len().div_ceil(CHUNK);
        let owners = self.params.iter().enumerate();
        owners.flat_map(|(i, p)| std::iter::repeat_n(i, chunks(p))).collect()
    }
}

/// A view of one parameter: its values and, if it is trained, its gradient.
#[derive(Clone)]
pub struct Param {
    /// The values in the compute type.
    pub value: Tensor,
    /// The low-precision copy that matmuls read; `None` if the storage type is the compute type.
    low_precision: Option<Tensor>,
    /// The gradient, which backward passes add to; `None` if the parameter is not trained.
    pub grad: Option<Tensor>,
}

impl Param {
    /// Creates a parameter without a low-precision copy.
    pub fn new(value: Tensor, grad: Option<Tensor>) -> Param {
        Param { value, low_precision: None, grad }
    }

    /// Returns the values in the storage type, as matmuls read them.
    pub fn operand(&self, device: &Device) -> Result<Tensor> {
        match &self.low_precision {
            Some(low_precision) => Ok(low_precision.clone()),
            None => to_operand(device, &self.value),
        }
    }

    /// Returns the values in `dtype`, which must be the compute type or the storage type.
    pub fn stored_as(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        if dtype == self.value.dtype() { Ok(self.value.clone()) } else { self.operand(device) }
    }
}

/// The weights of one network: the student, the teacher or the ImageNet model.
#[derive(Clone)]
pub struct Weights {
    spec: Rc<Spec>,
    /// All parameters in the compute type.
    pub values: Tensor,
    /// The low-precision copy of `values`, kept up to date; `None` if the storage type is the
    /// compute type.
    pub low_precision: Option<Tensor>,
    /// The gradients; `None` for a network that is not trained.
    pub grads: Option<Tensor>,
    /// Running statistics as committed by the last step.
    pub buffers: Tensor,
    /// Running statistics as updated by the current step; they become `buffers` when the step is
    /// committed.
    pub pending: Tensor,
}

impl Weights {
    /// Allocates zeroed weights, with gradients if the network is trained (`learns`).
    pub fn new(device: &Device, spec: &Rc<Spec>, learns: bool) -> Result<Weights> {
        let real = device.real();
        let flat = spec.params_len.max(CHUNK);
        let buffers = spec.buffers_len.max(CHUNK);
        device.scope("parameters", || {
            Ok(Weights {
                spec: spec.clone(),
                values: device.zeros(&[flat], real)?,
                low_precision: match device.operand() {
                    operand if operand == real => None,
                    operand => Some(device.zeros(&[flat], operand)?),
                },
                grads: if learns { Some(device.zeros(&[flat], real)?) } else { None },
                buffers: device.zeros(&[buffers], real)?,
                pending: device.zeros(&[buffers], real)?,
            })
        })
    }

    /// Returns the list of parameters and buffers.
    pub fn spec(&self) -> &Rc<Spec> {
        &self.spec
    }

    /// Returns a view of one parameter.
    pub fn param(&self, id: ParamId) -> Result<Param> {
        let spec = &self.spec.params[id.0];
        let view = |flat: &Tensor| flat.slice(spec.offset, &spec.shape_here());
        Ok(Param {
            value: view(&self.values)?,
            low_precision: self.low_precision.as_ref().map(view).transpose()?,
            grad: self.grads.as_ref().map(view).transpose()?,
        })
    }

    /// Returns a view of the committed values of a buffer.
    pub fn buffer(&self, id: BufferId) -> Result<Tensor> {
        let spec = &self.spec.buffers[id.0];
        self.buffers.slice(spec.offset, &spec.shape)
    }

    /// Returns a view of the values of a buffer as updated by the current step.
    pub fn pending(&self, id: BufferId) -> Result<Tensor> {
        let spec = &self.spec.buffers[id.0];
        self.pending.slice(spec.offset, &spec.shape)
    }

    /// Fills parameters and buffers with the values that `values` returns for each of them in the
    /// reference's layout. Where it returns `None`, the values remain unchanged.
    ///
    /// # Errors
    /// Returns a shape error if `values` returns a wrong number of elements, or the error that it
    /// returns.
    pub fn load(
        &mut self,
        device: &Device,
        mut values: impl FnMut(&ParamSpec) -> Result<Option<Vec<f32>>>,
    ) -> Result<()> {
        fill(device, &self.spec.params, &mut self.values, &mut values)?;
        self.refresh_low_precision(device)?;
        fill(device, &self.spec.buffers, &mut self.buffers, &mut values)?;
        device.copy(&self.buffers, &mut self.pending)
    }

    /// Initializes every parameter and buffer as its spec says. Random values depend on the seed
    /// alone.
    pub fn initialize(&mut self, device: &Device, seed: u64) -> Result<()> {
        let Spec { params, buffers, .. } = &*self.spec;
        let draw = |index: usize, param: &ParamSpec| {
            let mut draw = Draw::new(seed, 0, Purpose::Init, index as u64 + 1, 0);
            (0..param.len()).map(|_| param.init.sample(&mut draw)).collect()
        };
        let all: Vec<&ParamSpec> = params.iter().chain(buffers).collect();
        let drawn: Vec<Vec<f32>> =
            device.install(|| map(all.len(), |index| draw(index, all[index])))?;
        let mut drawn = drawn.into_iter();
        self.load(device, |_| Ok(drawn.next()))
    }

    /// Copies the parameters of another set of weights for the same network.
    pub fn copy_values(&mut self, device: &Device, from: &Weights) -> Result<()> {
        device.copy(&from.values, &mut self.values)?;
        self.refresh_low_precision(device)
    }

    fn refresh_low_precision(&mut self, device: &Device) -> Result<()> {
        match &mut self.low_precision {
            Some(low_precision) => round(device, &self.values, low_precision),
            None => Ok(()),
        }
    }

    /// Fills a flat buffer with the layout of the parameters (such as an optimizer moment), like
    /// [`load`](Self::load).
    pub fn load_flat(
        &self,
        device: &Device,
        flat: &mut Tensor,
        mut values: impl FnMut(&ParamSpec) -> Result<Option<Vec<f32>>>,
    ) -> Result<()> {
        fill(device, &self.spec.params, flat, &mut values)
    }

    /// Returns one parameter in the reference's layout from a flat buffer with the layout of the
    /// parameters (values, gradients, moments).
    pub fn export(&self, device: &Device, flat: &Tensor, index: usize) -> Result<Vec<f32>> {
        unpack(device, flat, &self.spec.params[index])
    }

    /// Returns a parameter with its values in the reference's layout.
    pub fn reference(&self, device: &Device, id: ParamId) -> Result<(&ParamSpec, Vec<f32>)> {
        Ok((&self.spec.params[id.0], self.export(device, &self.values, id.0)?))
    }

    /// Returns a buffer with its committed values in the reference's layout.
    pub fn reference_buffer(
        &self,
        device: &Device,
        id: BufferId,
    ) -> Result<(&ParamSpec, Vec<f32>)> {
        Ok((&self.spec.buffers[id.0], self.export_buffer(device, id.0)?))
    }

    /// Returns one committed buffer in the reference's layout.
    pub fn export_buffer(&self, device: &Device, index: usize) -> Result<Vec<f32>> {
        unpack(device, &self.buffers, &self.spec.buffers[index])
    }
}

fn fill(
    device: &Device,
    list: &[ParamSpec],
    flat: &mut Tensor,
    values: &mut dyn FnMut(&ParamSpec) -> Result<Option<Vec<f32>>>,
) -> Result<()> {
    for param in list {
        let Some(there) = values(param)? else { continue };
        if there.len() != param.len() {
            let problem = format!("{} holds {} numbers", param.name, there.len());
            return Err(Error::shape("load", problem));
        }
        let mut here = vec![0.0; there.len()];
        for (i, x) in there.into_iter().enumerate() {
            here[param.place(i)] = x;
        }
        device.write_real(&mut flat.slice(param.offset, &[here.len()])?, &here)?;
    }
    Ok(())
}

fn unpack(device: &Device, flat: &Tensor, param: &ParamSpec) -> Result<Vec<f32>> {
    let here = device.read_f32(&flat.slice(param.offset, &[param.len()])?)?;
    Ok((0..param.len()).map(|i| here[param.place(i)]).collect())
}
