//! What versions are run on: ops, forward and backward, at sizes that bench and test choose.

use udass_raw::Result;
use udass_raw::device::Device;
use udass_raw::ops::augment::{Augmentation, augment};
use udass_raw::ops::mix;
use udass_raw::ops::{self, BatchNorm, Conv, DropPath, ImageNormalizer, Mode, Norm, Windows};
use udass_raw::params::Param;
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};

/// An op, forward and backward, and its sizes. Maps are square.
#[derive(Clone, Debug)]
pub enum Op {
    /// `channels` in a head.
    Attention {
        batch: usize,
        heads: usize,
        queries: usize,
        keys: usize,
        channels: usize,
    },
    Depthwise {
        batch: usize,
        side: usize,
        channels: usize,
        dilation: usize,
    },
    DepthwiseGelu {
        batch: usize,
        side: usize,
        channels: usize,
    },
    Gelu {
        rows: usize,
        channels: usize,
    },
    /// With the residual connection, and drop-path at this rate.
    AddLayernorm {
        batch: usize,
        tokens: usize,
        channels: usize,
        rate: f64,
    },
    /// With the batch's statistics and a ReLU.
    BatchNorm {
        batch: usize,
        side: usize,
        channels: usize,
    },
    /// With a bias, whose gradient is a sum of columns.
    Linear {
        rows: usize,
        channels: usize,
        out: usize,
    },
    /// Through patches.
    Conv {
        batch: usize,
        side: usize,
        channels: usize,
        out: usize,
        kernel: usize,
        geometry: Conv,
    },
    /// A map alone, without a gradient.
    Resize {
        batch: usize,
        side: usize,
        channels: usize,
        to: usize,
    },
    /// Into some channels of a map, beside as many others.
    ResizeConcat {
        batch: usize,
        side: usize,
        channels: usize,
        to: usize,
    },
    MaxPool {
        batch: usize,
        side: usize,
        channels: usize,
    },
    /// Windows that overlap by half, on a grid with a cell for every `stride` pixels.
    WindowAverage {
        batch: usize,
        side: usize,
        window: usize,
        stride: usize,
        channels: usize,
    },
    /// Of values in labels.
    Presence {
        batch: usize,
        side: usize,
    },
    Jitter {
        batch: usize,
        side: usize,
    },
}

/// What an op computed, by name.
pub type Results = Vec<(&'static str, Vec<f64>)>;

/// What an op was given and has made, by name.
#[derive(Default)]
struct Made {
    /// Whose gradients are given.
    outputs: Vec<(&'static str, Tensor)>,
    /// What has no gradient.
    others: Vec<(&'static str, Tensor)>,
    /// What gets a gradient.
    inputs: Vec<(&'static str, Tensor)>,
    params: Vec<(&'static str, Param)>,
}

impl Op {
    /// Those of its kernels that this is for.
    pub fn kernels(&self) -> &'static [&'static str] {
        match self {
            Op::Attention { .. } => {
                &["attention_forward", "attention_backward", "attention_keys_gradient"]
            }
            Op::Depthwise { .. } => &["depthwise", "depthwise_filter"],
            Op::DepthwiseGelu { .. } => &["depthwise_gelu", "depthwise_gelu_filter"],
            Op::Gelu { .. } => &["gelu_forward", "gelu_backward"],
            Op::AddLayernorm { .. } => {
                &["layernorm_forward", "layernorm_backward", "layernorm_weights"]
            }
            Op::BatchNorm { .. } => {
                &["batchnorm_statistics", "batchnorm_gradient_partial", "batchnorm_gradient_final"]
            }
            Op::Linear { .. } => &["column_sums_final"],
            Op::Conv { .. } => &["patches_scatter"],
            Op::Resize { .. } => &["resize_forward"],
            Op::ResizeConcat { .. } => &["resize_backward"],
            Op::MaxPool { .. } => &["max_pool_backward"],
            Op::WindowAverage { .. } => &["window_average"],
            Op::Presence { .. } => &["count_values"],
            Op::Jitter { .. } => &["color_jitter"],
        }
    }

    pub(super) fn run(&self, device: &Device) -> Results {
        let tape = Tape::recording(device);
        let made = self.make(device, &tape).unwrap();
        let mut results: Results = (made.outputs.iter().chain(&made.others))
            .map(|(name, tensor)| (*name, numbers(device, tensor)))
            .collect();
        if !made.outputs.is_empty() {
            let given = (made.outputs.iter().zip(9..))
                .map(|((_, y), seed)| (y, tensor(device, y.shape(), seed)));
            let mut gradients = tape.backward(given.collect()).unwrap();
            for (name, x) in &made.inputs {
                results.push((name, numbers(device, &gradients.of(x).unwrap())));
            }
        }
        for (name, param) in &made.params {
            results.push((name, numbers(device, param.grad.as_ref().unwrap())));
        }
        results
    }

    /// The same in double precision.
    pub fn exactly(&self) -> Results {
        self.run(&Device::host_f64().unwrap())
    }

    fn make(&self, device: &Device, tape: &Tape) -> Result<Made> {
        let leaf = |shape: &[usize], seed| tape.leaf(&tensor(device, shape, seed));
        let param = |shape: &[usize], seed| {
            let zeros = device.zeros(shape, device.real()).unwrap();
            Param::new(tensor(device, shape, seed), Some(zeros))
        };
        Ok(match *self {
            Op::Attention { batch, heads, queries, keys, channels } => {
                let q = leaf(&[batch, queries, heads * channels], 1);
                let kv = leaf(&[batch, keys, 2 * heads * channels], 2);
                let y = ops::attention(tape, &q, &kv, heads)?;
                Made::learning(y, vec![("dq", q), ("dkv", kv)], vec![])
            }
            Op::Depthwise { batch, side, channels, dilation } => {
                let x = leaf(&[batch, side, side, channels], 1);
                let (w, b) = (param(&[3, 3, channels], 2), param(&[channels], 3));
                let y = ops::depthwise(tape, &x, &w, Some(&b), dilation)?;
                Made::learning(y, vec![("dx", x)], vec![("dw", w), ("db", b)])
            }
            Op::DepthwiseGelu { batch, side, channels } => {
                let x = leaf(&[batch, side, side, channels], 1);
                let (w, b) = (param(&[3, 3, channels], 2), param(&[channels], 3));
                let y = ops::depthwise_gelu(tape, &x, &w, Some(&b))?;
                Made::learning(y, vec![("dx", x)], vec![("dw", w), ("db", b)])
            }
            Op::Gelu { rows, channels } => {
                let x = leaf(&[rows, channels], 1);
                Made::learning(ops::gelu(tape, &x)?, vec![("dx", x)], vec![])
            }
            Op::AddLayernorm { batch, tokens, channels, rate } => {
                let shape = [batch, tokens, channels];
                let (x, branch) = (leaf(&shape, 1), leaf(&shape, 2));
                let (weight, bias) = (param(&[channels], 3), param(&[channels], 4));
                let norm = Norm { weight: weight.clone(), bias: bias.clone(), eps: 1e-6 };
                let drop = DropPath { rate, key: device.upload(&[1], &[7u64])?, stream: 3 };
                let (s, y) = ops::add_layernorm(tape, &x, &branch, Some(drop), &norm)?;
                Made {
                    outputs: vec![("s", s), ("y", y)],
                    inputs: vec![("dx", x), ("dbranch", branch)],
                    params: vec![("dgamma", weight), ("dbeta", bias)],
                    ..Made::default()
                }
            }
            Op::BatchNorm { batch, side, channels } => {
                let x = leaf(&[batch, side, side, channels], 1);
                let (weight, bias) = (param(&[channels], 2), param(&[channels], 3));
                let mean = tensor(device, &[channels], 4);
                let var = ops::full(device, &[channels], 1.0)?;
                let norm = BatchNorm {
                    weight: &weight,
                    bias: &bias,
                    running_mean: mean.clone(),
                    running_var: var.clone(),
                    tracked: None,
                };
                let mode = Mode::Train { momentum: 0.1 };
                let y = ops::batchnorm(tape, &x, norm, 1e-5, mode, true)?;
                let params = vec![("dweight", weight), ("dbias", bias)];
                let others = vec![("running_mean", mean), ("running_var", var)];
                Made { others, ..Made::learning(y, vec![("dx", x)], params) }
            }
            Op::Linear { rows, channels, out } => {
                let x = leaf(&[rows, channels], 1);
                let (w, b) = (param(&[out, channels], 2), param(&[out], 3));
                let y = ops::linear(tape, &x, &w, Some(&b))?;
                Made::learning(y, vec![("dx", x)], vec![("dw", w), ("db", b)])
            }
            Op::Conv { batch, side, channels, out, kernel, geometry } => {
                let x = leaf(&[batch, side, side, channels], 1);
                let w = param(&[out, kernel, kernel, channels], 2);
                let y = ops::conv(tape, &x, &w, None, geometry)?;
                Made::learning(y, vec![("dx", x)], vec![("dw", w)])
            }
            Op::Resize { batch, side, channels, to } => {
                let x = tensor(device, &[batch, side, side, channels], 1);
                Made::plain(ops::resize(tape, &x, (to, to), None)?)
            }
            Op::ResizeConcat { batch, side, channels, to } => {
                let beside = leaf(&[batch, to, to, channels], 1);
                let x = leaf(&[batch, side, side, channels], 2);
                let y = ops::resize_concat(tape, &[beside, x.clone()], (to, to))?;
                Made::learning(y, vec![("dx", x)], vec![])
            }
            Op::MaxPool { batch, side, channels } => {
                let x = leaf(&[batch, side, side, channels], 1);
                Made::learning(ops::max_pool(tape, &x)?, vec![("dx", x)], vec![])
            }
            Op::WindowAverage { batch, side, window, stride, channels } => {
                let step = (window / 2, window / 2);
                let windows = Windows::new(device, (side, side), (window, window), step)?;
                let (count, cells) = (windows.boxes().len() * batch, window / stride);
                let x = tensor(device, &[count, cells, cells, channels], 1);
                Made::plain(windows.average(device, &x, stride)?)
            }
            Op::Presence { batch, side } => {
                let label = device.upload(&[batch, side, side], &labels(batch, side))?;
                Made::plain(mix::presence(device, &label)?)
            }
            Op::Jitter { batch, side } => {
                let image = tensor(device, &[batch, side, side, 3], 1);
                let how = Augmentation {
                    factors: device
                        .upload_real(&[batch, 4], &[1.1, 0.9, 1.2, 0.1].repeat(batch))?,
                    order: device.upload(&[batch, 4], &[2i32, 0, 3, 1].repeat(batch))?,
                    sigma: ops::full(device, &[batch], 0.8)?,
                    switches: device.upload(&[2], &[1i32, 0])?,
                };
                Made::plain(augment(device, &ImageNormalizer::new(device)?, &image, &how)?)
            }
        })
    }
}

impl Made {
    fn learning(
        y: Tensor,
        inputs: Vec<(&'static str, Tensor)>,
        params: Vec<(&'static str, Param)>,
    ) -> Made {
        Made { outputs: vec![("y", y)], others: vec![], inputs, params }
    }

    fn plain(y: Tensor) -> Made {
        Made { others: vec![("y", y)], ..Made::default() }
    }
}

/// Of `real`.
fn tensor(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    device.upload_real(shape, &noise(shape, seed)).unwrap()
}

pub(super) fn numbers(device: &Device, tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F64 => device.read::<f64>(tensor).unwrap(),
        DType::I32 => device.read::<i32>(tensor).unwrap().into_iter().map(f64::from).collect(),
        DType::U8 => device.read::<u8>(tensor).unwrap().into_iter().map(f64::from).collect(),
        _ => device.read::<f32>(tensor).unwrap().into_iter().map(f64::from).collect(),
    }
}

/// Numbers in [-1, 1), the same in every precision.
fn noise(shape: &[usize], seed: u64) -> Vec<f32> {
    let n: usize = shape.iter().product();
    let one = |i: u64| {
        let mut z = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed << 56;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z >> 40) as f32) / (1 << 23) as f32 - 1.0
    };
    (0..n as u64).map(one).collect()
}

/// Blocks of 19 classes and of what has none, other ones in every picture.
fn labels(batch: usize, side: usize) -> Vec<u8> {
    let block = (side / 8).max(8);
    let one = |i: usize| {
        let (image, y, x) = (i / (side * side), i / side % side / block, i % side / block);
        match (5 * image + 7 * y + 3 * x) % 23 {
            class @ 0..19 => class as u8,
            _ => 255,
        }
    };
    (0..batch * side * side).map(one).collect()
}
