//! A linear layer of feature maps that are resized to one size and concatenated.
//!
//! Resizing and a 1×1 convolution commute, since one acts on pixels and the other on channels, and
//! the weights of a bilinear resize add up to 1. So each map is multiplied by its columns of the
//! weights at its own size, where it has up to 64 times fewer pixels, and the products are resized
//! and added. The concatenation is never in memory.

use crate::device::{Device, MatrixView};
use crate::params::Param;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::elementwise::to_operand;
use super::matmul::{fill_rows, matmul, matmul_to};
use super::resize::Plan;

const NAME: &str = "linear_of_resized";

/// Computes `linear(resize_concat(inputs, size), w)` in the storage type. Inputs: B,Hᵢ,Wᵢ,Cᵢ; w:
/// K,ΣCᵢ (or K,1,1,ΣCᵢ); output: B,Ho,Wo,K.
///
/// # Errors
/// Returns a shape error if the inputs differ in batch, there are none, or they do not match the
/// weights.
pub fn linear_of_resized(
    tape: &Tape,
    inputs: &[Tensor],
    size: (usize, usize),
    w: &Param,
) -> Result<Tensor> {
    let device = tape.device();
    let channels: Vec<usize> = inputs.iter().map(Tensor::channels).collect();
    let columns = Columns::new(w, &channels)?;
    let levels = plans(inputs, size, columns.filters)?;
    let weights = w.operand(device)?;
    let parts = columns.of(&weights)?;
    let y = sum(device, inputs, &levels, &parts, None)?;

    let (inputs, dw) = (inputs.to_vec(), w.grad.clone());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        let weights = columns.of(&weights)?;
        let dw = dw.as_ref().map(|dw| columns.of(dw)).transpose()?;
        for (i, (x, plan)) in inputs.iter().zip(&levels).enumerate() {
            let dz = match plan.is_copy() {
                true => dy.clone(),
                false => {
                    let [batch, height, width, _] = x.bhwc(NAME)?;
                    let shape = [batch, height, width, columns.filters];
                    let mut dz = device.alloc(&shape, dy.dtype())?;
                    plan.backward(&device, &dy, 0, &mut dz, false)?;
                    dz
                }
            };
            let dz = MatrixView::of(&dz);
            if let Some(dw) = &dw {
                matmul_to(&device, dw[i], dz.t(), MatrixView::of(x), true)?;
            }
            gradients
                .write(&x.slot, |dx, accumulate| matmul(&device, dx, dz, weights[i], accumulate))?;
        }
        Ok(())
    }))
}

/// Computes `linear(resize_concat([linear(x, wᵢ, bᵢ) for each input], size), w)` without the
/// gradients, by multiplying the layers' weights with each other first.
///
/// # Errors
/// Returns the same errors as [`linear_of_resized`], and a shape error if there is not one layer for
/// each input.
pub fn folded_linear_of_resized(
    device: &Device,
    inputs: &[Tensor],
    size: (usize, usize),
    inner: &[(Param, Option<Param>)],
    w: &Param,
) -> Result<Tensor> {
    if inner.len() != inputs.len() {
        let problem = format!("{} layers for {} inputs", inner.len(), inputs.len());
        return Err(Error::shape(NAME, problem));
    }
    let channels: Vec<usize> = inner.iter().map(|(w, _)| w.value.dim(0)).collect();
    let columns = Columns::new(w, &channels)?;
    let levels = plans(inputs, size, columns.filters)?;
    let weights = w.operand(device)?;
    let mut bias = device.zeros(&[1, columns.filters], device.real())?;
    let mut folded = Vec::new();
    for ((w, b), outer) in inner.iter().zip(columns.of(&weights)?) {
        let w = w.operand(device)?;
        let mut both = device.alloc(&[columns.filters, w.channels()], device.real())?;
        matmul(device, &mut both, outer, MatrixView::of(&w), false)?;
        folded.push(to_operand(device, &both)?);
        if let Some(b) = b {
            let b = b.operand(device)?;
            matmul(device, &mut bias, MatrixView::shaped(&b, 1, b.len())?, outer.t(), true)?;
        }
    }
    let parts: Vec<MatrixView> = folded.iter().map(MatrixView::of).collect();
    sum(device, inputs, &levels, &parts, Some(&bias))
}

/// The columns of the weights that belong to each input.
struct Columns {
    filters: usize,
    /// First column and number of columns.
    ranges: Vec<(usize, usize)>,
    total: usize,
}

impl Columns {
    fn new(w: &Param, channels: &[usize]) -> Result<Columns> {
        let (filters, total) = (w.value.dim(0), channels.iter().sum());
        if channels.is_empty() || w.value.len() != filters * total {
            let problem = format!("{channels:?} channels do not match weights {:?}", w.value);
            return Err(Error::shape(NAME, problem));
        }
        let ranges = channels.iter().scan(0, |end, &count| {
            *end += count;
            Some((*end - count, count))
        });
        Ok(Columns { filters, ranges: ranges.collect(), total })
    }

    /// Views each range of a tensor with the shape of the weights.
    fn of<'a>(&self, weights: &'a Tensor) -> Result<Vec<MatrixView<'a>>> {
        let all = MatrixView::shaped(weights, self.filters, self.total)?;
        self.ranges.iter().map(|&range| all.columns(range)).collect()
    }
}

/// Returns how each input's product is resized.
fn plans(inputs: &[Tensor], size: (usize, usize), filters: usize) -> Result<Vec<Plan>> {
    let batch = inputs.first().map(|x| x.dim(0));
    let plan = |x: &Tensor| {
        if Some(x.dim(0)) != batch {
            return Err(Error::shape(
                NAME,
                format!("{x:?} has another batch than the first input"),
            ));
        }
        let mut plan = Plan::new(NAME, x, size, None)?;
        plan.channels = filters;
        Ok(plan)
    };
    inputs.iter().map(plan).collect()
}

/// Adds the resized products `inputs[i]·weights[i]ᵀ` to the bias, in the compute type, and returns
/// the sum in the storage type.
fn sum(
    device: &Device,
    inputs: &[Tensor],
    plans: &[Plan],
    weights: &[MatrixView],
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let Plan { batch, size_out, channels, .. } = plans[0];
    let mut y = device.alloc(&[batch, size_out.0, size_out.1, channels], device.real())?;
    if let Some(bias) = bias {
        fill_rows(device, bias, &mut y)?;
    }
    let mut accumulate = bias.is_some();
    for ((x, plan), weights) in inputs.iter().zip(plans).zip(weights) {
        let (x, weights) = (MatrixView::of(x), weights.t());
        match plan.is_copy() {
            true => matmul(device, &mut y, x, weights, accumulate)?,
            false => {
                let (height, width) = plan.size_in;
                let mut z = device.alloc(&[batch, height, width, channels], device.real())?;
                matmul(device, &mut z, x, weights, false)?;
                plan.forward_wide(device, &z, &mut y, accumulate)?;
            }
        }
        accumulate = true;
    }
    to_operand(device, &y)
}
