//! Cases of single layers. All feature maps are square, in the layout B,H,W,C.

use serde_json::{Value, json};
use udass_raw::device::group::Slots;
use udass_raw::ops::{self, BatchNorm, Conv, DropPath, Mode, Norm};
use udass_raw::params::Param;
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};

use super::recorded::{Input, Op, Set};
use super::{Bed, List};

use Input::{Fixed, Operand, Real};

/// A square feature map.
#[derive(Clone, Copy)]
pub struct Map {
    pub batch: usize,
    pub side: usize,
    pub channels: usize,
}

impl Map {
    pub fn shape(self) -> Vec<usize> {
        vec![self.batch, self.side, self.side, self.channels]
    }

    pub fn rows(self) -> usize {
        self.batch * self.side * self.side
    }

    /// The map's sizes as JSON, extended by `more`.
    fn and(self, more: Value) -> Value {
        let mut all = json!({"batch": self.batch, "side": self.side, "channels": self.channels});
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
        all
    }
}

/// A convolution's filter and its geometry.
pub struct Filter {
    pub out: usize,
    pub kernel: usize,
    pub geometry: Conv,
    pub bias: bool,
}

impl List {
    pub fn layernorm(&mut self, rows: usize, channels: usize) {
        let shape = json!({"rows": rows, "channels": channels});
        let (inputs, params) = (vec![Real(vec![rows, channels])], vec![vec![channels]; 2]);
        let apply =
            |tape: &Tape, s: &Set| vec![ops::layernorm(tape, &s.x[0], &norm(&s.p)).unwrap()];
        self.op("layernorm", shape, Op::new(inputs, params, apply));
    }

    /// Residual sum, drop-path and layer norm. Returns (sum, norm), both with a gradient.
    pub fn add_layernorm(&mut self, batch: usize, tokens: usize, channels: usize, rate: f64) {
        let shape = json!({"batch": batch, "tokens": tokens, "channels": channels, "rate": rate});
        let whole = vec![batch, tokens, channels];
        let apply = move |tape: &Tape, s: &Set| {
            let drop = DropPath { rate, key: s.more[0].clone(), stream: 3, slots: Slots::whole(1) };
            let (x, branch, norm) = (&s.x[0], &s.x[1], norm(&s.p));
            let (sum, y) = ops::add_layernorm(tape, x, branch, Some(drop), &norm).unwrap();
            vec![sum, y]
        };
        let inputs = vec![Real(whole.clone()), Operand(whole)];
        let op = Op::new(inputs, vec![vec![channels]; 2], apply).with(key);
        self.op("add_layernorm", shape, op);
    }

    pub fn linear(&mut self, rows: usize, channels: usize, out: usize, bias: bool) {
        let shape = json!({"rows": rows, "channels": channels, "out": out, "bias": bias});
        let mut params = vec![vec![out, channels]];
        params.extend(bias.then(|| vec![out]));
        let apply =
            |tape: &Tape, s: &Set| vec![ops::linear(tape, &s.x[0], &s.p[0], s.p.get(1)).unwrap()];
        self.op("linear", shape, Op::new(vec![Operand(vec![rows, channels])], params, apply));
    }

    /// The linear layer that computes logits, which are not rounded to the operand type.
    pub fn classifier(&mut self, rows: usize, channels: usize, out: usize) {
        let shape = json!({"rows": rows, "channels": channels, "out": out, "bias": true});
        let params = vec![vec![out, channels], vec![out]];
        let apply = |tape: &Tape, s: &Set| {
            vec![ops::linear_wide(tape, &s.x[0], &s.p[0], s.p.get(1)).unwrap()]
        };
        self.op("linear", shape, Op::new(vec![Operand(vec![rows, channels])], params, apply));
    }

    pub fn attention(&mut self, batch: usize, heads: usize, tokens: [usize; 2], head_dim: usize) {
        let ([queries, keys], channels) = (tokens, heads * head_dim);
        let shape = json!({"batch": batch, "heads": heads, "queries": queries, "keys": keys,
            "head_dim": head_dim});
        let inputs =
            vec![Operand(vec![batch, queries, channels]), Operand(vec![batch, keys, 2 * channels])];
        let apply = move |tape: &Tape, s: &Set| {
            vec![ops::attention(tape, &s.x[0], &s.x[1], heads).unwrap()]
        };
        self.op("attention", shape, Op::new(inputs, vec![], apply));
    }

    pub fn depthwise(&mut self, map: Map, dilation: usize) {
        let params = vec![vec![3, 3, map.channels]];
        let apply = move |tape: &Tape, s: &Set| {
            vec![ops::depthwise(tape, &s.x[0], &s.p[0], None, dilation).unwrap()]
        };
        let op = Op::new(vec![Operand(map.shape())], params, apply);
        self.op("depthwise3x3", map.and(json!({"dilation": dilation})), op);
    }

    pub fn depthwise_gelu(&mut self, map: Map) {
        let params = vec![vec![3, 3, map.channels], vec![map.channels]];
        let apply = |tape: &Tape, s: &Set| {
            vec![ops::depthwise_gelu(tape, &s.x[0], &s.p[0], s.p.get(1)).unwrap()]
        };
        let op = Op::new(vec![Operand(map.shape())], params, apply);
        self.op("depthwise_gelu", map.and(json!({})), op);
    }

    /// `wide` keeps the output in `real`, for the start of a residual stream. Images (3 channels)
    /// get no gradient.
    pub fn conv(&mut self, name: &'static str, map: Map, filter: Filter, wide: bool) {
        let Filter { out, kernel, geometry, bias } = filter;
        let Conv { stride, padding, dilation } = geometry;
        let shape = map.and(json!({"out": out, "kernel": kernel, "stride": stride,
            "padding": padding, "dilation": dilation, "bias": bias}));
        let mut params = vec![vec![out, kernel, kernel, map.channels]];
        params.extend(bias.then(|| vec![out]));
        let apply = move |tape: &Tape, s: &Set| {
            let conv = if wide { ops::conv_wide } else { ops::conv };
            vec![conv(tape, &s.x[0], &s.p[0], s.p.get(1), geometry).unwrap()]
        };
        let input = if map.channels == 3 { Fixed(map.shape()) } else { Operand(map.shape()) };
        self.op(name, shape, Op::new(vec![input], params, apply));
    }

    /// A 3×3 convolution with stride 1, padded to keep the size.
    pub fn conv3x3(&mut self, map: Map, out: usize, dilation: usize, bias: bool) {
        let filter = Filter { out, kernel: 3, geometry: Conv::same(3, dilation), bias };
        self.conv("conv3x3", map, filter, false);
    }

    /// Batch norm with the batch's statistics.
    pub fn batchnorm(&mut self, map: Map, relu: bool) {
        let name = if relu { "batchnorm_relu" } else { "batchnorm" };
        self.op(name, map.and(json!({})), normed(map, relu, Mode::Train { momentum: 0.1 }));
    }

    /// Batch norm with the running statistics, as in the frozen ImageNet network.
    pub fn batchnorm_running(&mut self, map: Map) {
        self.forward("batchnorm_running_relu", map.and(json!({})), normed(map, true, Mode::Eval));
    }

    pub fn max_pool(&mut self, map: Map) {
        let apply = |tape: &Tape, s: &Set| vec![ops::max_pool(tape, &s.x[0]).unwrap()];
        self.op("max_pool", map.and(json!({})), Op::new(vec![Operand(map.shape())], vec![], apply));
    }

    pub fn add(&mut self, map: Map, relu: bool) {
        let apply =
            move |tape: &Tape, s: &Set| vec![ops::add(tape, &s.x[0], &s.x[1], relu).unwrap()];
        let op = Op::new(vec![Operand(map.shape()), Operand(map.shape())], vec![], apply);
        self.op(if relu { "add_relu" } else { "add" }, map.and(json!({})), op);
    }

    pub fn bilinear(&mut self, map: Map, to: usize) {
        let apply =
            move |tape: &Tape, s: &Set| vec![ops::resize(tape, &s.x[0], (to, to), None).unwrap()];
        let op = Op::new(vec![Operand(map.shape())], vec![], apply);
        self.op("bilinear", map.and(json!({"to": to})), op);
    }

    /// Halves an image for the context crop. Images stay in single precision.
    pub fn halve(&mut self, map: Map) {
        let to = map.side / 2;
        let apply = move |tape: &Tape, s: &Set| {
            vec![ops::resize(tape, &s.x[0], (to, to), Some((0.5, 0.5))).unwrap()]
        };
        let op = Op::new(vec![Real(map.shape())], vec![], apply);
        self.forward("bilinear", map.and(json!({"to": to})), op);
    }

    /// Resizes four feature levels, each half the size of the previous one, to the size of the
    /// first, and concatenates them.
    pub fn resize_concat(&mut self, map: Map) {
        let side = map.side;
        let level = |i: usize| Operand(Map { side: (side >> i).max(1), ..map }.shape());
        let apply =
            move |tape: &Tape, s: &Set| vec![ops::resize_concat(tape, &s.x, (side, side)).unwrap()];
        let op = Op::new((0..4).map(level).collect(), vec![], apply);
        self.op("resize_concat", map.and(json!({})), op);
    }

    /// Resizes four feature levels as above, and multiplies the concatenation.
    pub fn linear_of_resized(&mut self, map: Map, out: usize) {
        let side = map.side;
        let level = |i: usize| Operand(Map { side: (side >> i).max(1), ..map }.shape());
        let apply = move |tape: &Tape, s: &Set| {
            vec![ops::linear_of_resized(tape, &s.x, (side, side), &s.p[0]).unwrap()]
        };
        let weights = vec![vec![out, 4 * map.channels]];
        let op = Op::new((0..4).map(level).collect(), weights, apply);
        self.op("linear_of_resized", map.and(json!({"out": out})), op);
    }

    /// The same with a linear layer of each level before it, from `widths` channels, as the
    /// teacher runs it.
    pub fn folded_linear_of_resized(&mut self, widths: [usize; 4], map: Map, out: usize) {
        let (side, channels) = (map.side, map.channels);
        let level = |i: usize| {
            Operand(Map { side: (side >> i).max(1), channels: widths[i], ..map }.shape())
        };
        let inner = widths.iter().flat_map(|&width| [vec![channels, width], vec![channels]]);
        let weights: Vec<Vec<usize>> = inner.chain([vec![out, 4 * channels]]).collect();
        let apply = move |tape: &Tape, s: &Set| {
            let pair = |p: &[Param]| (p[0].clone(), Some(p[1].clone()));
            let inner: Vec<_> = s.p[..8].chunks(2).map(pair).collect();
            let (device, size) = (tape.device(), (side, side));
            vec![ops::folded_linear_of_resized(device, &s.x, size, &inner, &s.p[8]).unwrap()]
        };
        let op = Op::new((0..4).map(level).collect(), weights, apply);
        self.forward(
            "folded_linear_of_resized",
            map.and(json!({"widths": widths, "out": out})),
            op,
        );
    }

    pub fn concat(&mut self, map: Map, parts: usize) {
        let apply = |tape: &Tape, s: &Set| vec![ops::concat(tape, &s.x).unwrap()];
        let op = Op::new(vec![Operand(map.shape()); parts], vec![], apply);
        self.op("concat", map.and(json!({"parts": parts})), op);
    }

    pub fn dropout(&mut self, map: Map, rate: f32) {
        // Parses the decimal text, because a cast would turn the f32 0.1 into 0.10000000149011612.
        let rate: f64 = rate.to_string().parse().unwrap();
        let apply = move |tape: &Tape, s: &Set| {
            vec![ops::dropout2d(tape, &s.x[0], rate, &s.more[0], 7, Slots::whole(1)).unwrap()]
        };
        let op = Op::new(vec![Operand(map.shape())], vec![], apply).with(key);
        self.op("dropout2d", map.and(json!({"rate": rate})), op);
    }
}

fn norm(params: &[Param]) -> Norm {
    Norm { weight: params[0].clone(), bias: params[1].clone(), eps: 1e-6 }
}

fn normed(map: Map, relu: bool, mode: Mode) -> Op {
    let channels = map.channels;
    let apply = move |tape: &Tape, s: &Set| {
        let norm = BatchNorm {
            weight: &s.p[0],
            bias: &s.p[1],
            running_mean: s.more[0].clone(),
            running_var: s.more[1].clone(),
            tracked: None,
        };
        vec![ops::batchnorm(tape, &s.x[0], norm, 1e-5, mode, relu).unwrap()]
    };
    let running = move |bed: &Bed, slot| {
        let one = ops::full(&bed.device, &[channels], 1.0).unwrap();
        vec![bed.numbers(&[channels], slot), one]
    };
    Op::new(vec![Operand(map.shape())], vec![vec![channels]; 2], apply).with(running)
}

/// The key of the dropout RNG.
fn key(bed: &Bed, slot: u64) -> Vec<Tensor> {
    let mut key = bed.device.alloc(&[1], DType::U64).unwrap();
    bed.device.write(&mut key, &[slot]).unwrap();
    vec![key]
}
