//! The flat parameter store: every parameter of a network in one contiguous buffer, and beside it,
//! laid out alike, gradients, moments and the teacher.
//!
//! A parameter is known by its name in the reference's state dict. Its layout there and here may
//! differ ([`Layout`]); conversion happens on the way in and out.

use std::rc::Rc;

use crate::device::Device;
use crate::dtype::DType;
use crate::ops::{round, to_operand};
use crate::rng::{Draw, Purpose};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Parameters start at multiples of it, so that a chunk belongs to one parameter.
pub const CHUNK: usize = 256;

/// How a tensor of the reference's state dict is laid out here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As in the reference.
    Same,
    /// Convolution filters: K,C,R,S there, K,R,S,C here.
    Filter,
    /// Depthwise filters: C,1,R,S there, R,S,C here.
    Depthwise,
}

/// What a parameter starts from where no weights are loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Constant(f32),
    /// Normal, cut off at two standard deviations.
    TruncatedNormal(f32),
    Normal(f32),
}

#[derive(Clone, Debug)]
pub struct ParamSpec {
    pub name: String,
    /// Shape in the reference.
    pub shape: Vec<usize>,
    pub layout: Layout,
    pub init: Init,
    /// First element in the flat store.
    offset: usize,
}

impl ParamSpec {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape here.
    fn shape_here(&self) -> Vec<usize> {
        match (self.layout, self.shape.as_slice()) {
            (Layout::Filter, &[k, c, r, s]) => vec![k, r, s, c],
            (Layout::Depthwise, &[c, _, r, s]) => vec![r, s, c],
            _ => self.shape.clone(),
        }
    }

    /// Index here of the element at `index` in the reference.
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

/// Names one parameter, or one buffer, of a [`Spec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(usize);

/// All parameters and buffers of a network, in the order of the reference's modules.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    params: Vec<ParamSpec>,
    /// Running statistics of batch norms; never touched by the optimiser.
    buffers: Vec<ParamSpec>,
    params_len: usize,
    buffers_len: usize,
}

impl Spec {
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

    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    pub fn buffers(&self) -> &[ParamSpec] {
        &self.buffers
    }

    /// The layer that a parameter belongs to, by the reference's name.
    pub fn layer_of(&self, id: ParamId) -> &str {
        let name = &self.params[id.0].name;
        name.rsplit_once('.').map_or(name, |(layer, _)| layer)
    }

    /// Elements of the flat store, padding included.
    pub fn flat_len(&self) -> usize {
        self.params_len
    }

    /// For every chunk of the flat store, the index of its parameter.
    pub fn chunk_owners(&self) -> Vec<usize> {
        let chunks = |p: &ParamSpec| p.len().div_ceil(CHUNK);
        let owners = self.params.iter().enumerate();
        owners.flat_map(|(i, p)| std::iter::repeat_n(i, chunks(p))).collect()
    }
}

/// A parameter in use: a view of its values and, when it learns, of its gradient.
#[derive(Clone)]
pub struct Param {
    pub value: Tensor,
    /// The value as products take it, where that is another tensor.
    shadow: Option<Tensor>,
    /// Accumulates.
    pub grad: Option<Tensor>,
}

impl Param {
    pub fn new(value: Tensor, grad: Option<Tensor>) -> Param {
        Param { value, shadow: None, grad }
    }

    /// Keeps the value as products take it; it does not follow later changes.
    pub fn with_shadow(mut self, device: &Device) -> Result<Param> {
        self.shadow = Some(to_operand(device, &self.value)?);
        Ok(self)
    }

    /// The value as products take it.
    pub fn operand(&self, device: &Device) -> Result<Tensor> {
        match &self.shadow {
            Some(shadow) => Ok(shadow.clone()),
            None => to_operand(device, &self.value),
        }
    }

    /// The value in the type of what it is added to.
    pub fn stored_as(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        if dtype == self.value.dtype() { Ok(self.value.clone()) } else { self.operand(device) }
    }
}

/// One set of values for a network: the student's, the teacher's or the ImageNet model's.
#[derive(Clone)]
pub struct Weights {
    spec: Rc<Spec>,
    pub values: Tensor,
    /// The values as products take them, where that is another type; follows them.
    pub shadow: Option<Tensor>,
    /// None for a network that does not learn.
    pub grads: Option<Tensor>,
    /// Running statistics as of the last step.
    pub buffers: Tensor,
    /// Running statistics as moved by this step; they become `buffers` when it is committed.
    pub pending: Tensor,
}

impl Weights {
    pub fn new(device: &Device, spec: &Rc<Spec>, learns: bool) -> Result<Weights> {
        let real = device.real();
        let flat = spec.params_len.max(CHUNK);
        let buffers = spec.buffers_len.max(CHUNK);
        device.scope("parameters", || {
            Ok(Weights {
                spec: spec.clone(),
                values: device.zeros(&[flat], real)?,
                shadow: match device.operand() {
                    operand if operand == real => None,
                    operand => Some(device.zeros(&[flat], operand)?),
                },
                grads: if learns { Some(device.zeros(&[flat], real)?) } else { None },
                buffers: device.zeros(&[buffers], real)?,
                pending: device.zeros(&[buffers], real)?,
            })
        })
    }

    pub fn spec(&self) -> &Rc<Spec> {
        &self.spec
    }

    pub fn param(&self, id: ParamId) -> Result<Param> {
        let spec = &self.spec.params[id.0];
        let view = |flat: &Tensor| flat.slice(spec.offset, &spec.shape_here());
        Ok(Param {
            value: view(&self.values)?,
            shadow: self.shadow.as_ref().map(view).transpose()?,
            grad: self.grads.as_ref().map(view).transpose()?,
        })
    }

    /// Committed values of a buffer.
    pub fn buffer(&self, id: BufferId) -> Result<Tensor> {
        let spec = &self.spec.buffers[id.0];
        self.buffers.slice(spec.offset, &spec.shape)
    }

    /// Values of a buffer as this step moves them.
    pub fn pending(&self, id: BufferId) -> Result<Tensor> {
        let spec = &self.spec.buffers[id.0];
        self.pending.slice(spec.offset, &spec.shape)
    }

    /// Fills parameters and buffers from what `values` gives for each name, in the reference's
    /// layout; what it has no values for is left as it is.
    pub fn load(
        &mut self,
        device: &Device,
        mut values: impl FnMut(&ParamSpec) -> Result<Option<Vec<f32>>>,
    ) -> Result<()> {
        fill(device, &self.spec.params, &mut self.values, &mut values)?;
        self.refresh_shadow(device)?;
        fill(device, &self.spec.buffers, &mut self.buffers, &mut values)?;
        device.copy(&self.buffers, &mut self.pending)
    }

    /// Starts every parameter as its spec says; what is drawn, is drawn from the seed alone.
    pub fn initialize(&mut self, device: &Device, seed: u64) -> Result<()> {
        let mut slot = 0;
        self.load(device, |param| {
            slot += 1;
            let mut draw = Draw::new(seed, 0, Purpose::Init, slot, 0);
            let mut normal = move || {
                // Box and Muller; 1 - u keeps the logarithm finite.
                let (u, v) = (1.0 - draw.uniform(), draw.uniform());
                (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
            };
            let n = param.len();
            Ok(Some(match param.init {
                Init::Constant(x) => vec![x; n],
                Init::Normal(std) => (0..n).map(|_| (normal() * std as f64) as f32).collect(),
                Init::TruncatedNormal(std) => (0..n)
                    .map(|_| {
                        let inside = std::iter::repeat_with(&mut normal).find(|x| x.abs() <= 2.0);
                        (inside.unwrap_or(0.0) * std as f64) as f32
                    })
                    .collect(),
            }))
        })
    }

    /// Takes over the parameters of other weights of the same network.
    pub fn copy_values(&mut self, device: &Device, from: &Weights) -> Result<()> {
        device.copy(&from.values, &mut self.values)?;
        self.refresh_shadow(device)
    }

    fn refresh_shadow(&mut self, device: &Device) -> Result<()> {
        match &mut self.shadow {
            Some(shadow) => round(device, &self.values, shadow),
            None => Ok(()),
        }
    }

    /// As [`load`](Self::load), for a flat buffer laid out like the parameters (a moment).
    pub fn load_flat(
        &self,
        device: &Device,
        flat: &mut Tensor,
        mut values: impl FnMut(&ParamSpec) -> Result<Option<Vec<f32>>>,
    ) -> Result<()> {
        fill(device, &self.spec.params, flat, &mut values)
    }

    /// One parameter in the reference's layout, out of a flat buffer laid out like the parameters
    /// (values, gradients, moments).
    pub fn export(&self, device: &Device, flat: &Tensor, index: usize) -> Result<Vec<f32>> {
        unpack(device, flat, &self.spec.params[index])
    }

    /// One committed buffer in the reference's layout.
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
